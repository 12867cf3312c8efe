"""The protocols as declared, and the legacy resize of two of them against formulas and another implementation."""

import numpy as np
import pytest
import torch

from diffit.scoring.metrics import metrics_of
from diffit.scoring.protocols import PROTOCOLS


def legacy(image: np.ndarray) -> np.ndarray:
    return PROTOCOLS["adm"].resize()(image)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_each_protocol_stands_under_its_name_and_is_complete():
    assert list(PROTOCOLS) == ["clean", "adm", "edm"]
    assert all(name == protocol.name and protocol.source for name, protocol in PROTOCOLS.items())
    scores = {name: [score for metric in metrics_of(name) for score in metric.gives] for name in PROTOCOLS}
    assert scores["clean"] == ["fid", "kid"]
    assert scores["adm"] == [
        "fid", "sfid", "inception_score", "precision", "recall", "precision_float32", "recall_float32"
    ]  # fmt: skip
    assert scores["edm"] == ["fid"]
    assert [name for name, protocol in PROTOCOLS.items() if protocol.published_statistics] == ["adm"]
    assert PROTOCOLS["adm"].reference_images == 10_000
    assert [(p.sets, p.statistic) for p in PROTOCOLS.values()] == [(1, "single"), (1, "single"), (3, "minimum")]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_resize_gives_what_the_network_takes(name):
    resized = PROTOCOLS[name].resize()(noise(17, 23))
    assert resized.shape == (299, 299, 3) and resized.dtype == np.float32
    assert resized.min() >= 0 and resized.max() <= 255


def test_legacy_resize_places_pixel_i_at_i_times_the_scale_and_repeats_the_last_one():
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, :, None] * 10, (8, 8, 3))
    expected = np.minimum(np.arange(299) * 8 / 299, 7) * 10  # a ramp interpolates to itself, up to its last pixel
    np.testing.assert_allclose(legacy(ramp), np.broadcast_to(expected[None, :, None], (299, 299, 3)), atol=1e-4)
    np.testing.assert_allclose(legacy(ramp.transpose(1, 0, 2)), legacy(ramp).transpose(1, 0, 2), atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (64, 48), (256, 256), (512, 512), (640, 333)])
def test_legacy_resize_equals_torchs_sampler_at_the_same_places(size):
    image, (height, width) = noise(*size), size
    # grid_sample's -1 and 1 are the centres of the first and last pixel; border repeats what lies beyond them
    y, x = (np.arange(299) * (n / 299) * (2 / max(n - 1, 1)) - 1 for n in (height, width))
    grid = torch.from_numpy(np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1))[None]  # 1 299 299 2
    pixels = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.grid_sample(pixels, grid, "bilinear", "border", align_corners=True)[0]
    np.testing.assert_allclose(legacy(image), expected.permute(1, 2, 0).numpy(), atol=0.02)  # float32 places


def test_legacy_resize_leaves_images_of_the_networks_size_alone():
    np.testing.assert_array_equal(legacy(noise(299, 299)), noise(299, 299))


def test_legacy_resize_aliases_where_cleans_does_not():
    stripes = np.zeros((598, 598, 3), np.uint8)
    stripes[:, ::2] = 255
    assert (legacy(stripes) == 255).all()  # every second pixel, as TensorFlow takes them
    assert abs(PROTOCOLS["clean"].resize()(stripes)[20:-20, 20:-20].mean() - 127.5) < 1
