"""The networks and processes of the ablations: each can be trained, and each differs from the base network."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml
from helpers.places import REPOSITORY

from diffit import process
from diffit.config.toy_runs import PREFIX, complete
from diffit.nets import build, takes_labels
from diffit.nets.inspect import size
from diffit.nets.layers import TMSA, cached_position_bias
from diffit.nets.song import SongConfig, SongUNet
from diffit.nets.ushaped import UShapedConfig, UShapedDiffiT
from diffit.nets.variants import FourierEmbedding
from diffit.training.task import expected_network

BASE = UShapedConfig(
    resolution=16, channels=3, width=16, multipliers=(1, 2), blocks=2, window=4, head_dim=8, mlp_ratio=2, time_dim=32,
    groups=4, dropout=0.0, augment_labels=9,
)  # fmt: skip
CELLS = [(16, 2), (32, 2), (16, 2)]  # channels and cells of each stage: two of the encoder, one of the decoder
OFFSETS = 7 * 7  # of a window of 4×4


# The shipped configuration with its presets and toy runs.
CONFIG = complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)
RUNS = sorted(name for name in CONFIG["runs"] if not name.startswith(PREFIX))


def variant(**changes) -> UShapedDiffiT:
    torch.manual_seed(0)
    return UShapedDiffiT(dataclasses.replace(BASE, **changes))


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def batch(net_config, count: int = 3) -> tuple:
    torch.manual_seed(1)
    shape = (count, net_config.channels, net_config.resolution, net_config.resolution)
    return torch.randn(shape), torch.linspace(-1, 1, count), torch.zeros(count, net_config.augment_labels)


def randomized(net: torch.nn.Module) -> torch.nn.Module:
    """The network with random weights, because the last layer of an untrained network is 0."""
    torch.manual_seed(2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


# ------------------------------------------------------------------------------------------------ the U-shaped network


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        # Difference per cell to TMSA, which projects time to queries, keys and values.
        ({"transformer": "time-in-bias"}, lambda c, t: (t + 1) * (OFFSETS * (c // 8) - 3 * c)),
        ({"transformer": "time-in-mlp"}, lambda c, t: (t + 1) * (c - 3 * c)),
        ({"transformer": "separate"}, lambda c, t: (t + 1) * (c - 3 * c)),
        ({"transformer": "time-token"}, lambda c, t: (t + 1) * (2 * c - 3 * c)),
        ({"window": 8}, lambda c, t: (15 * 15 - OFFSETS) * (c // 8)),
        ({"window": 2}, lambda c, t: (3 * 3 - OFFSETS) * (c // 8)),
    ],
)
def test_a_variant_of_the_cells_has_the_expected_number_of_parameters(changes, difference):
    expected = sum(cells * difference(channels, BASE.time_dim) for channels, cells in CELLS)
    assert parameters(variant(**changes)) - parameters(variant()) == expected != 0


def test_bilinear_resizing_has_parameters_only_to_change_the_number_of_channels():
    convolutions = (16 * 32 * 9 + 32) + (32 * 16 * 9 + 16)
    channels = (16 * 32 + 32) + (32 * 16 + 16)
    assert parameters(variant()) - parameters(variant(resizing="bilinear")) == convolutions - channels
    assert not list(variant(multipliers=(2, 2), resizing="bilinear").downsamplers.parameters())


def test_vision_transformer_stages_replace_the_configured_half_of_the_network():
    for changes in ({"encoder": "vit"}, {"decoder": "vit"}, {"encoder": "vit", "decoder": "vit"}):
        net = variant(**changes)
        for name in ("encoder", "decoder"):
            has_tmsa = any(isinstance(m, TMSA) for m in getattr(net, name).modules())
            assert has_tmsa == (changes.get(name) != "vit")


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"transformer": "time-in-bias"}, {"transformer": "time-in-mlp"}, {"transformer": "separate"},
        {"transformer": "time-token"}, {"time_embedding": "fourier"}, {"resizing": "bilinear"}, {"encoder": "vit"},
        {"decoder": "vit"},
    ],
)  # fmt: skip
def test_every_variant_depends_on_time_and_processes_images_independently(changes):
    net = randomized(variant(**changes))
    x, noise, labels = batch(BASE)
    out = net(x, noise, labels)
    assert not torch.allclose(out, net(x, noise + 0.5, labels), atol=1e-4)
    torch.testing.assert_close(net(x[1:2], noise[1:2], labels[1:2]), out[1:2], atol=1e-4, rtol=1e-4)
    if changes:
        base = randomized(variant())
        assert not torch.allclose(out, base(x, noise, labels), atol=1e-3)


def test_time_enters_attention_weights_and_values_as_the_table_says():
    x, early, late = torch.randn(4, 16, 16), torch.randn(2, 32), torch.randn(2, 32)
    sees = {}
    for name in ("tmsa", "separate", "time-token", "time-in-bias", "time-in-mlp"):
        block = randomized(variant(transformer=name)).encoder[0][0].transformer
        attention = block.attn
        (_, _, v0), (_, _, v1) = attention.project(x, early), attention.project(x, late)
        weights = [attention.weights(x, time) for time in (early, late)]
        outputs = [block.mlp(block.norm2(x)) for _ in (early, late)]
        attended = [attention(x, time) for time in (early, late)]
        sees[name] = [not torch.allclose(*pair, atol=1e-5) for pair in (weights, (v0, v1), attended)]
        assert torch.equal(*outputs)
    assert sees == {
        "tmsa": [True, True, True],
        "separate": [False, True, True],
        "time-token": [True, True, True],
        "time-in-bias": [True, False, True],
        "time-in-mlp": [False, False, False],
    }


def test_the_separate_time_token_adds_its_value_to_the_spatial_attention():
    attention = randomized(variant(transformer="separate")).encoder[0][0].transformer.attn
    x, time = torch.randn(2, 16, 16), torch.randn(1, 32)
    of_space = attention(x, torch.zeros(1, 32)) - attention.proj(attention.v_temb.bias) + attention.proj.bias
    expected = of_space + attention.proj(attention.v_temb(time)) - attention.proj.bias
    torch.testing.assert_close(attention(x, time), expected, atol=1e-5, rtol=1e-5)


def test_the_time_token_is_one_more_key_and_value_of_every_window():
    """Compared with attention written as in a vision transformer: softmax over the N spatial tokens and the time."""
    attention = randomized(variant(transformer="time-token")).encoder[0][0].transformer.attn
    x, time = torch.randn(4, 16, 16), torch.randn(2, 32)  # two windows of each of two images
    c, heads = 16, attention.heads
    q, k, v = attention.qkv(x).split(c, dim=-1)
    expected = torch.empty_like(x)
    for window in range(4):
        k_time, v_time = attention.kv_temb(time[window // 2]).split(c)
        keys, values = torch.cat([k[window], k_time[None]]), torch.cat([v[window], v_time[None]])
        for head in range(heads):
            channels = slice(head * c // heads, (head + 1) * c // heads)
            bias = attention.relative_position_bias_table[attention.relative_position_index, head]  # [N, N]
            logits = q[window][:, channels] @ keys[:, channels].T / (c // heads) ** 0.5
            logits[:, :-1] += bias
            expected[window][:, channels] = logits.softmax(dim=-1) @ values[:, channels]
    torch.testing.assert_close(attention(x, time), attention.proj(expected), atol=1e-5, rtol=1e-5)
    weights = attention.weights(x, time)
    assert weights.shape == (4, heads, 16, 17) and torch.allclose(weights.sum(dim=-1), torch.ones(4, heads, 16))


def test_the_time_token_is_sampled_with_its_bias_cached():
    net = randomized(variant(transformer="time-token"))
    inputs = batch(BASE)
    expected = net(*inputs)
    with torch.no_grad(), cached_position_bias(net):
        torch.testing.assert_close(net(*inputs), expected.detach(), atol=1e-5, rtol=1e-5)


def test_fourier_frequencies_are_random_and_saved_with_the_weights():
    embedding = FourierEmbedding(512, 8)
    assert 14 < embedding.frequencies.std() < 18 and "frequencies" in embedding.state_dict()
    noise = torch.tensor([0.3])
    angles = 2 * np.pi * 0.3 * embedding.frequencies
    torch.testing.assert_close(embedding.embed(noise)[0], torch.cat([angles.cos(), angles.sin()]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("key", ["transformer", "time_embedding", "resizing", "encoder", "decoder"])
def test_an_unknown_variant_is_refused(key):
    with pytest.raises(ValueError, match=f"{key} is 'other'; choose one of"):
        variant(**{key: "other"})


# ------------------------------------------------------------------------------------------------ Table 5, Figure 7b


@pytest.mark.parametrize(("run", "count"), [("ddpmpp_vp", 61_804_419), ("ncsnpp_ve", 62_758_787)])
def test_songs_networks_have_the_parameters_of_edms_and_tmsa_replaces_only_attention(run, count):
    runs = [CONFIG["runs"][f"cifar10_{run}{tmsa}"] for tmsa in ("", "_tmsa")]
    with torch.device("meta"):
        plain, tmsa = (build(expected_network(CONFIG, run)) for run in runs)
    assert parameters(plain) == count
    # Four cells of the encoder and one of the decoder have attention at 16×16, and the first middle cell at 4×4.
    time, tables = 6 * (512 + 1) * 3 * 256, 5 * 31**2 + 7**2
    assert parameters(tmsa) - parameters(plain) == time + tables
    unlike = {name for name in tmsa.state_dict() if name not in plain.state_dict()}
    assert unlike and all(".attention." in name for name in unlike)


def test_only_the_runs_of_table_5_mirror_images_and_tell_the_network_nothing():
    shipped = {name: CONFIG["runs"][name]["process"] for name in RUNS if "process" in CONFIG["runs"][name]}
    unlabelled = {name: spec for name, spec in shipped.items() if spec["kind"] != "ddpm" and "xflip" in spec}
    assert {name.removesuffix("_tmsa") for name in unlabelled} == {"cifar10_ddpmpp_vp", "cifar10_ncsnpp_ve"}
    assert len(unlabelled) == 4
    for spec in unlabelled.values():
        assert (spec["xflip"], spec["augment"]) == (True, {"probability": 0, "xflip": False})


@pytest.mark.parametrize("form", ["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize("tmsa", [False, True])
def test_songs_networks_depend_on_time_and_process_images_independently(form, tmsa):
    config = SongConfig(16, 3, form, 16, (1, 2), 1, 8, tmsa, 0.0, 9)
    net = randomized(SongUNet(config))
    x, noise, labels = batch(config)
    out = net(x, noise, labels)
    assert out.shape == x.shape and not torch.allclose(out, net(x, noise + 0.5, labels), atol=1e-4)
    torch.testing.assert_close(net(x[1:2], noise[1:2], labels[1:2]), out[1:2], atol=1e-3, rtol=1e-3)


def test_dit_xl_2_has_the_published_size_and_tmsa_replaces_its_modulation():
    spec = {
        "kind": "dit", "input_size": 32, "channels": 4, "patch_size": 2, "hidden_size": 1152, "depth": 28,
        "num_heads": 16, "mlp_ratio": 4, "num_classes": 1000, "conditioning": "adaln-zero",
    }  # fmt: skip
    found = size(spec)
    count = found.parameters
    assert count + 256 * 1152 == 675_129_632  # the published number includes the fixed position table
    assert found.flops / 2e9 == pytest.approx(118.6, abs=0.1)
    with torch.device("meta"):
        tmsa = build({**spec, "conditioning": "tmsa"})
    block = 1152 * 6 * 1152 + 6 * 1152  # of modulation
    ours = 1152 * 3 * 1152 + 3 * 1152 + 31**2 * 16  # of TMSA: the time token's projection and the bias table
    assert count - parameters(tmsa) == 28 * (block - ours)


def test_dit_blocks_are_initially_the_identity():
    spec = {
        "kind": "dit", "input_size": 4, "channels": 4, "patch_size": 1, "hidden_size": 16, "depth": 2, "num_heads": 2,
        "mlp_ratio": 2, "num_classes": 3, "conditioning": "adaln-zero",
    }  # fmt: skip
    net, x = build(spec), torch.randn(2, 16, 16)
    assert torch.equal(net.blocks[0](x, torch.randn(2, 16)), x)
    args = torch.randn(2, 4, 4, 4), torch.tensor([5, 900]), torch.tensor([0, 3])
    assert net(*args).abs().max() == 0
    random_net, other = randomized(net), randomized(build({**spec, "conditioning": "tmsa"}))
    assert not torch.allclose(random_net(*args), other(*args), atol=1e-3)


# ------------------------------------------------------------------------------------------ runs of config.yaml


@pytest.mark.parametrize("name", RUNS)
def test_a_training_step_of_every_toy_run_reaches_every_parameter(name):
    run = CONFIG["runs"].get(f"toy_{name}")
    if run is None:
        assert "weights" in CONFIG["runs"][name] or CONFIG["runs"][name]["dataset"].startswith("digits")
        return
    task = process.build(run["process"])
    latent = takes_labels(run["net"]["kind"])
    shape = (
        {"input_size": 4, "channels": 4, "num_classes": 10}
        if latent
        else {"resolution": 32, "channels": 3, "augment_labels": task.augment_labels}
    )
    net = randomized(build({**run["net"], **shape})).train()
    images = torch.randn(2, 4, 4, 4) if latent else torch.rand(2, 3, 32, 32) * 2 - 1
    draws = [task.draw(np.random.default_rng(i), tuple(images.shape[1:])) for i in range(2)]
    drawn = {name: torch.stack([torch.as_tensor(draw[name]) for draw in draws]) for name in draws[0]}
    if latent:
        drawn["labels"] = torch.tensor([1, 2])
    loss = task.losses(task.denoiser(net), images, drawn).sum()
    loss.backward()
    assert torch.isfinite(loss)
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still in ([], ["y_embedder.embedding_table.weight"]) or all("augment" in name for name in still), still


def test_toys_of_different_runs_differ():
    """Except for runs that differ only in length or data, which are the same for all toy runs."""
    alike = {}
    for name, run in CONFIG["runs"].items():
        if name.startswith("toy_") and "edm_length" not in name and "imagenet512" not in name:
            key = yaml.safe_dump([run["net"], run["process"], run["training"], run["sampler"]])
            alike.setdefault(key, []).append(name)
    assert all(len(names) == 1 for names in alike.values()), alike
