"""The paper's figures that are pictures: grids of samples, attention maps, diagrams of networks."""

import json

import numpy as np
import pytest
import torch
import yaml
from helpers.places import REPOSITORY
from PIL import Image

from diffit.cli import UserError
from diffit.config.toy_runs import complete
from diffit.data.grids import panel, stacked
from diffit.nets import build
from diffit.nets.inspect import parts
from diffit.paper import attention_maps, network_diagram
from diffit.paper.networks import expand_network
from diffit.paper.scale import Scale
from diffit.sample import _label
from diffit.store import tars
from diffit.store.manifest import gather
from diffit.store.members import encode_npy
from diffit.weights import milestone

LATENT = {
    "kind": "latent", "input_size": 8, "channels": 4, "patch_size": 2, "hidden_size": 8, "depth": 3, "num_heads": 2,
    "mlp_ratio": 2, "num_classes": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Thirty images, with classes 0, 1 and 2 in turn; the brightness of each is 8 × its number."""
    folder = tmp_path_factory.mktemp("samples")

    def member(number: int) -> bytes:
        return encode_npy(np.full((48, 48, 3), 8 * number, np.uint8))

    drawn = ((f"{i:08d}", {"npy": member(i), "cls": str(i % 3).encode()}) for i in range(30))
    tars.write_tar(folder / "0-of-1.tar", drawn)
    gather(folder, 1)
    return folder


def numbers(grid: np.ndarray, columns: int) -> list[int]:
    """The numbers of the images in a grid, from their brightness."""
    centres = grid[26::50, 26::50, 0][:, :columns]
    return (centres.flatten() // 8).tolist()


def test_a_panel_shows_the_first_images_by_seed_of_the_chosen_classes(samples):
    assert numbers(panel(samples, 2, 5), 5) == list(range(10))
    assert numbers(panel(samples, 2, 3, [1]), 3) == [1, 4, 7, 10, 13, 16]
    assert numbers(panel(samples, 1, 4, [0, 2]), 4) == [0, 2, 3, 5]


def test_a_grid_of_more_images_than_were_sampled_is_refused(samples):
    with pytest.raises(UserError, match=r"holds 10 images of the classes \[2\], but the figure shows 12"):
        panel(samples, 3, 4, [2])


def test_panels_of_several_runs_are_below_each_other(samples):
    wide, narrow = panel(samples, 1, 5), panel(samples, 2, 2)
    both = stacked([wide, narrow])
    assert both.shape == (wide.shape[0] + narrow.shape[0], wide.shape[1], 3)
    assert (both[wide.shape[0] :, narrow.shape[1] :] == 255).all()


def test_a_sampler_cycles_through_its_list_of_classes():
    sampler = {"labels": [207, 88]}
    assert [_label(sampler, 1000, seed, None) for seed in range(4)] == [207, 88, 207, 88]


@pytest.mark.parametrize(
    ("grid", "window", "place"), [(8, 4, (3, 0)), (8, 8, (0, 36)), (8, 2, (10, 0)), (4, 4, (0, 10))]
)
def test_the_centre_of_a_grid_is_found_in_its_window(grid, window, place):
    number, token = attention_maps.centre(grid, window)
    assert (number, token) == place
    columns = grid // window
    row, column = number // columns * window + token // window, number % columns * window + token % window
    assert (row, column) == (grid // 2, grid // 2)


@pytest.mark.parametrize(("transformer", "sums"), [("tmsa", (0.99999, 1.00001)), ("time-token", (0.5, 0.999))])
def test_attention_is_recorded_at_each_step_and_level(tiny_run, tmp_path, transformer, sums):
    """A map shows the weights of the spatial tokens, which sum to 1 unless time is a token, too."""
    spec = {
        **tiny_run["net"], "transformer": transformer, "resolution": 8, "channels": 3, "augment_labels": 9,
    }  # fmt: skip
    net = build(spec)
    torch.manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    facts = {"net": spec, "process": tiny_run["process"], "kimg": 1, "images_trained": 1000, "commit": "c"}
    milestone.write(tmp_path / "tiny" / "1", net, {**facts, "dataset": "digits", "data_sha256": "d"})
    sampler = {"kind": "heun", "steps": 4, "sigma_min": 0.002, "sigma_max": 80, "rho": 7}
    moments = attention_maps.trajectory(tmp_path / "tiny" / "1", sampler, seed=3)
    assert [moment.sigma for moment in moments] == sorted([moment.sigma for moment in moments], reverse=True)
    assert len(moments) == 4 and moments[0].sigma == pytest.approx(80)
    for moment in moments:
        assert [seen.shape for seen in moment.maps] == [(8, 8), (4, 4)]
        assert [int(np.isfinite(seen).sum()) for seen in moment.maps] == [16, 16]  # windows of 4×4
        assert all(sums[0] < np.nansum(seen) < sums[1] for seen in moment.maps)
    attention_maps.draw({"tiny": moments}, tmp_path / "attention.png")
    assert Image.open(tmp_path / "attention.png").size[0] > 500


def test_a_network_without_diffit_blocks_is_refused():
    with pytest.raises(UserError, match="no DiffiT blocks"):
        attention_maps.AttentionRecorder(torch.nn.Identity(), build(LATENT))


def test_a_diagram_shows_the_components_of_a_latent_network(tmp_path):
    listed = parts(LATENT, "encoder")
    assert [name for name, _ in listed][1:3] == ["Patches to tokens", "DiffiT Transformer block × 3"]
    assert [size for _, size in listed] == ["8 × 8 × 4", "4 × 4 × 8", "16 × 8", "8 × 8 × 8"]
    network_diagram.draw(LATENT, tmp_path / "latent.png")
    assert Image.open(tmp_path / "latent.png").size[1] > 200


def test_the_network_of_a_run_gets_the_sizes_that_its_training_gives_it():
    config = complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)
    spec = expand_network(json.loads(json.dumps(Scale(config).network("here", "ffhq64"))))
    assert (spec["resolution"], spec["augment_labels"]) == (64, 9)
    assert build({**spec, "blocks": 1})
