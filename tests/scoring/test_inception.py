"""The network in the published file: its arrays against its own layers, and files without this network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffit.cli import UserError
from diffit.scoring.inception import Inception
from diffit.store import files

PIXELS = np.random.default_rng(0).uniform(0, 255, (3, 299, 299, 3)).astype(np.float32)
BLOCKS = ["mixed", *(f"mixed_{number}" for number in range(1, 11))]


class Other(torch.nn.Module):
    """A network with layers, but without Inception's."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def layers(inception: Path) -> torch.jit.ScriptModule:
    return torch.jit.load(inception / "inception.pt").eval().net.layers


def normalized() -> torch.Tensor:
    return (torch.from_numpy(PIXELS).permute(0, 3, 1, 2) - 128) / 128


def test_features_are_those_of_the_whole_script_bit_for_bit(inception):
    script = torch.jit.load(inception / "inception.pt").eval()
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        expected = script(normalized()).numpy()
    network = Inception(inception / "inception.pt", "cpu")
    np.testing.assert_array_equal(network(PIXELS)["features"], expected)
    np.testing.assert_array_equal(network(PIXELS, {"spatial"})["features"], expected)


def test_the_file_has_the_layers_of_tensorflows_graph_where_mixed_6_is_the_third_of_four(layers):
    assert [name for name, _ in layers.named_children() if name.startswith("mixed")] == BLOCKS
    weights = dict(layers.named_parameters())
    assert [weights[f"{name}.tower.conv.weight"].shape[0] for name in BLOCKS[4:8]] == [128, 160, 160, 192]
    assert all(weights[f"{name}.conv.weight"].shape == (192, 768, 1, 1) for name in BLOCKS[4:8])


def test_spatial_is_the_first_convolution_of_mixed_6_after_its_relu_place_by_place(inception, layers):
    weights, x = dict(layers.named_parameters()), normalized()
    with torch.inference_mode():
        for name, block in layers.named_children():
            if name == "mixed_6":
                break
            x = block(x)
        kernel, beta, mean, var = (weights[f"mixed_6.conv.{part}"] for part in ("weight", "beta", "mean", "var"))
        x = functional.conv2d(x, kernel).sub(mean[:, None, None]).div((var + 1e-3).sqrt()[:, None, None])
        expected = (x + beta[:, None, None]).relu().numpy()  # 3 192 17 17
    spatial = Inception(inception / "inception.pt", "cpu")(PIXELS, {"spatial"})["spatial"]
    assert spatial.shape == (3, 2023) and spatial.dtype == np.float32 and spatial.min() == 0
    np.testing.assert_allclose(spatial.reshape(3, 17, 17, 7).transpose(0, 3, 1, 2), expected[:, :7], atol=1e-4)


def test_the_wheels_file_has_no_logits_and_says_so(inception):
    network = Inception(inception / "inception.pt", "cpu")
    assert network.missing == {"logits": "the network ends at its features, without the 1008 classes"}


def test_a_file_in_nvidias_form_gives_the_same_features_and_logits_without_bias(inception, inception_with_classes):
    network = Inception(inception_with_classes / "inception.pt", "cpu")
    assert network.missing == {}
    found, expected = network(PIXELS, {"spatial", "logits"}), Inception(inception / "inception.pt", "cpu")(PIXELS)
    np.testing.assert_array_equal(found["features"], expected["features"])
    weight = torch.jit.load(inception_with_classes / "inception.pt").output.weight.detach().numpy()
    assert found["logits"].shape == (3, 1008) and found["logits"].dtype == np.float32
    np.testing.assert_allclose(found["logits"], expected["features"] @ weight.T, atol=1e-4)


def test_a_truncated_file_and_another_one_are_refused_although_their_sha256_is_right(inception, tmp_path):
    for name, content, said in [
        ("truncated", (inception / "inception.pt").read_bytes()[:1_000_000], "not readable as TorchScript"),
        ("text", b"weights", "not readable as TorchScript"),
    ]:
        path = tmp_path / name / "inception.pt"
        path.parent.mkdir()
        path.write_bytes(content)
        files.seal(path)
        with pytest.raises(UserError, match=said):
            Inception(path, "cpu")


def test_a_script_of_another_network_is_refused_or_says_what_it_lacks(tmp_path):
    for name, module in [("linear", torch.nn.Linear(2, 2)), ("other", Other())]:
        path = tmp_path / f"{name}.pt"
        torch.jit.script(module).save(path)
        files.seal(path)
    with pytest.raises(UserError, match="has no layers"):
        Inception(tmp_path / "linear.pt", "cpu")
    assert set(Inception(tmp_path / "other.pt", "cpu").missing) == {"spatial", "logits"}
