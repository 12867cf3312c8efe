"""The networks and processes of the ablations: each trains, and none of them is silently the base."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml
from diffit.planning.flops import network
from helpers.places import REPOSITORY

from diffit import process
from diffit.config.toy_runs import complete
from diffit.nets import LATENT, build
from diffit.nets.layers import TMSA
from diffit.nets.song import SongConfig, SongUNet
from diffit.nets.ushaped import UShapedConfig, UShapedDiffiT
from diffit.nets.variants import FourierEmbedding
from diffit.process.ve import SIGMAS
from diffit.process.vp import sigma_at, time_of

BASE = UShapedConfig(
    resolution=16, channels=3, width=16, multipliers=(1, 2), blocks=2, window=4, head_dim=8, mlp_ratio=2, time_dim=32,
    groups=4, dropout=0.0, augment_labels=9,
)  # fmt: skip
CELLS = [(16, 2), (32, 2), (16, 2)]  # channels and cells of each stage: two of the encoder, one of the decoder
OFFSETS = 7 * 7  # of a window of 4×4


@pytest.fixture(scope="module")
def config() -> dict:
    """The shipped configuration with its toys."""
    return complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)


RUNS = sorted(yaml.safe_load((REPOSITORY / "config.yaml").read_text())["runs"])


def variant(**changes) -> UShapedDiffiT:
    torch.manual_seed(0)
    return UShapedDiffiT(dataclasses.replace(BASE, **changes))


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def batch(net_config, count: int = 3) -> tuple:
    torch.manual_seed(1)
    shape = (count, net_config.channels, net_config.resolution, net_config.resolution)
    return torch.randn(shape), torch.linspace(-1, 1, count), torch.zeros(count, net_config.augment_labels)


def loudly(net: torch.nn.Module) -> torch.nn.Module:
    """With random weights everywhere, since networks begin with zeros at their ends."""
    torch.manual_seed(2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


# ------------------------------------------------------------------------------------------------ the U-shaped network


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        # For each cell: instead of a projection of time to queries, keys and values …
        ({"transformer": "time-in-bias"}, lambda c, t: (t + 1) * (OFFSETS * (c // 8) - 3 * c)),
        ({"transformer": "time-in-mlp"}, lambda c, t: (t + 1) * (c - 3 * c)),
        ({"transformer": "separate"}, lambda c, t: (t + 1) * (c - 3 * c)),
        ({"window": 8}, lambda c, t: (15 * 15 - OFFSETS) * (c // 8)),
        ({"window": 2}, lambda c, t: (3 * 3 - OFFSETS) * (c // 8)),
    ],
)
def test_a_variant_of_the_cells_has_the_parameters_that_it_should(changes, difference):
    expected = sum(cells * difference(channels, BASE.time_dim) for channels, cells in CELLS)
    assert parameters(variant(**changes)) - parameters(variant()) == expected != 0


def test_bilinear_resizing_learns_a_change_of_channels_at_most():
    convolutions = (16 * 32 * 9 + 32) + (32 * 16 * 9 + 16)
    channels = (16 * 32 + 32) + (32 * 16 + 16)
    assert parameters(variant()) - parameters(variant(resizing="bilinear")) == convolutions - channels
    assert not list(variant(multipliers=(2, 2), resizing="bilinear").downsamplers.parameters())


def test_stages_of_a_vision_transformer_stand_where_they_are_asked_for():
    for changes in ({"encoder": "vit"}, {"decoder": "vit"}, {"encoder": "vit", "decoder": "vit"}):
        net = variant(**changes)
        for name in ("encoder", "decoder"):
            has_tmsa = any(isinstance(m, TMSA) for m in getattr(net, name).modules())
            assert has_tmsa == (changes.get(name) != "vit")


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"transformer": "time-in-bias"}, {"transformer": "time-in-mlp"}, {"transformer": "separate"},
        {"time_embedding": "fourier"}, {"resizing": "bilinear"}, {"encoder": "vit"}, {"decoder": "vit"},
    ],
)  # fmt: skip
def test_every_variant_looks_at_time_and_no_two_images_at_each_other(changes):
    net = loudly(variant(**changes))
    x, noise, labels = batch(BASE)
    out = net(x, noise, labels)
    assert not torch.allclose(out, net(x, noise + 0.5, labels), atol=1e-4)
    torch.testing.assert_close(net(x[1:2], noise[1:2], labels[1:2]), out[1:2], atol=1e-4, rtol=1e-4)
    if changes:
        base = loudly(variant())
        assert not torch.allclose(out, base(x, noise, labels), atol=1e-3)


def test_where_time_enters_is_where_the_table_says():
    """What TMSA's attention weights and values do with time, and its rivals' do not."""
    x, early, late = torch.randn(4, 16, 16), torch.randn(2, 32), torch.randn(2, 32)
    sees = {}
    for name in ("tmsa", "separate", "time-in-bias", "time-in-mlp"):
        block = loudly(variant(transformer=name)).encoder[0][0].transformer
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
        "time-in-bias": [True, False, True],
        "time-in-mlp": [False, False, False],
    }


def test_the_separate_time_token_adds_its_own_value_to_what_space_attends_to():
    attention = loudly(variant(transformer="separate")).encoder[0][0].transformer.attn
    x, time = torch.randn(2, 16, 16), torch.randn(1, 32)
    of_space = attention(x, torch.zeros(1, 32)) - attention.proj(attention.v_temb.bias) + attention.proj.bias
    expected = of_space + attention.proj(attention.v_temb(time)) - attention.proj.bias
    torch.testing.assert_close(attention(x, time), expected, atol=1e-5, rtol=1e-5)


def test_fourier_frequencies_are_random_fixed_and_kept_with_the_weights():
    embedding = FourierEmbedding(512, 8)
    assert 14 < embedding.frequencies.std() < 18 and "frequencies" in embedding.state_dict()
    noise = torch.tensor([0.3])
    angles = 2 * np.pi * 0.3 * embedding.frequencies
    torch.testing.assert_close(embedding.embed(noise)[0], torch.cat([angles.cos(), angles.sin()]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("key", ["transformer", "time_embedding", "resizing", "encoder", "decoder"])
def test_a_variant_that_there_is_none_of_is_refused(key):
    with pytest.raises(ValueError, match=f"{key} is 'other'; choose one of"):
        variant(**{key: "other"})


# ------------------------------------------------------------------------------------------------ Table 5, Figure 7b


@pytest.mark.parametrize(("form", "millions"), [("ddpmpp", 61.80), ("ncsnpp", 62.76)])
def test_songs_networks_have_the_published_parameters_and_tmsa_replaces_attention_alone(form, millions):
    with torch.device("meta"):
        plain, tmsa = (
            SongUNet(SongConfig(32, 3, form, 128, (1, 2, 2, 2), 4, 16, tmsa, 0.1, 0)) for tmsa in (False, True)
        )
    assert round(parameters(plain) / 1e6, 2) == millions
    # At 16×16 four cells of the encoder and one of the decoder attend, at 4×4 the first of the middle.
    time, tables = 6 * (512 + 1) * 3 * 256, 5 * 31**2 + 7**2
    assert parameters(tmsa) - parameters(plain) == time + tables
    unlike = {name for name in tmsa.state_dict() if name not in plain.state_dict()}
    assert unlike and all(".attention." in name for name in unlike)


@pytest.mark.parametrize("form", ["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize("tmsa", [False, True])
def test_songs_networks_look_at_time_and_no_two_images_at_each_other(form, tmsa):
    config = SongConfig(16, 3, form, 16, (1, 2), 1, 8, tmsa, 0.0, 9)
    net = loudly(SongUNet(config))
    x, noise, labels = batch(config)
    out = net(x, noise, labels)
    assert out.shape == x.shape and not torch.allclose(out, net(x, noise + 0.5, labels), atol=1e-4)
    torch.testing.assert_close(net(x[1:2], noise[1:2], labels[1:2]), out[1:2], atol=1e-3, rtol=1e-3)


def test_vp_and_ve_are_preconditioned_as_edms_table_says():
    seen = {}

    def net(x, noise, augment):
        seen["x"], seen["noise"] = x, noise
        return torch.ones_like(x)

    net.parameters = lambda: iter([torch.zeros(1)])
    x, sigma = torch.randn(2, 3, 4, 4), torch.tensor([0.5, 20.0])
    s = sigma[:, None, None, None]
    for kind, c_in, c_out, noise in [
        ("vp", 1 / (s**2 + 1).sqrt(), -s, 999 * time_of(sigma)),
        ("ve", torch.ones_like(s), s, (sigma / 2).log()),
    ]:
        task = process.build({"kind": kind, "augment": {"probability": 0, "xflip": False}})
        denoiser = task.denoiser(torch.nn.Identity())
        denoiser.__dict__["_modules"].pop("net")
        denoiser.net = net
        torch.testing.assert_close(denoiser(x, sigma), x + c_out)
        torch.testing.assert_close(seen["x"], c_in * x)
        torch.testing.assert_close(seen["noise"], noise.float())


def test_vp_and_ve_draw_their_own_noise_levels_and_weight_by_them():
    # β from 0.1 to 20: σ(1)² + 1 = exp(10.05).
    assert sigma_at(1.0) ** 2 + 1 == pytest.approx(np.exp(10.05))
    times = torch.tensor([1e-5, 0.01, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(time_of(torch.from_numpy(sigma_at(times.numpy()))), times, rtol=1e-6, atol=1e-9)
    rng = np.random.default_rng(0)
    quantiles = {}
    for kind in ("vp", "ve"):
        loss = process.build({"kind": kind, "augment": {"probability": 0, "xflip": False}}).loss
        sigmas = np.sort([loss.draw(rng, (1, 1, 1))["sigma"] for _ in range(4000)])
        quantiles[kind] = sigmas[[0, 2000, -1]]
        images, noise, sigma = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2), torch.tensor([0.5, 4.0])
        # A denoiser that changes nothing is wrong by the noise, which the weight brings to 1 for each of 4 pixels.
        torch.testing.assert_close(loss(lambda x, s, a: x, images, sigma, noise), torch.tensor([4.0, 4.0]))
    low, middle, high = quantiles["vp"]
    assert low < 0.03 and middle == pytest.approx(sigma_at(0.5), rel=0.1) and 130 < high <= sigma_at(1.0)
    low, middle, high = quantiles["ve"]
    assert SIGMAS[0] <= low < 0.021 and middle == pytest.approx(2**0.5, rel=0.15) and 98 < high <= SIGMAS[1]


def test_samplers_stay_within_the_noise_that_a_network_knows():
    settings = {"steps": 18, "sigma_min": 0.002, "sigma_max": 80, "rho": 7}
    augment = {"probability": 0, "xflip": False}
    bounds = {
        kind: (sampler.sigma_min, sampler.sigma_max)
        for kind in ("vp", "ve")
        for sampler in [process.build({"kind": kind, "augment": augment}).sampler(settings)]
    }
    assert bounds == {"vp": (0.002, 80), "ve": (0.02, 80)}


def test_dit_xl_2_has_the_published_size_and_tmsa_takes_the_place_of_its_modulation():
    spec = {
        "kind": "dit", "input_size": 32, "channels": 4, "patch_size": 2, "hidden_size": 1152, "depth": 28,
        "num_heads": 16, "mlp_ratio": 4, "num_classes": 1000, "conditioning": "adaln-zero",
    }  # fmt: skip
    import json

    work, count = network(json.dumps(spec))
    assert count + 256 * 1152 == 675_129_632  # published with the fixed position table
    assert work / 2e9 == pytest.approx(118.6, abs=0.1)
    with torch.device("meta"):
        tmsa = build({**spec, "conditioning": "tmsa"})
    block = 1152 * 6 * 1152 + 6 * 1152  # of modulation
    ours = 1152 * 3 * 1152 + 3 * 1152 + 31**2 * 16  # of TMSA: the time token's projection and the bias table
    assert count - parameters(tmsa) == 28 * (block - ours)


def test_blocks_of_dit_begin_as_the_identity():
    spec = {
        "kind": "dit", "input_size": 4, "channels": 4, "patch_size": 1, "hidden_size": 16, "depth": 2, "num_heads": 2,
        "mlp_ratio": 2, "num_classes": 3, "conditioning": "adaln-zero",
    }  # fmt: skip
    net, x = build(spec), torch.randn(2, 16, 16)
    assert torch.equal(net.blocks[0](x, torch.randn(2, 16)), x)
    args = torch.randn(2, 4, 4, 4), torch.tensor([5, 900]), torch.tensor([0, 3])
    assert net(*args).abs().max() == 0
    loud, other = loudly(net), loudly(build({**spec, "conditioning": "tmsa"}))
    assert not torch.allclose(loud(*args), other(*args), atol=1e-3)


# ---------------------------------------------------------------------------------------- all that is configured


@pytest.mark.parametrize("name", RUNS)
def test_a_step_of_every_runs_toy_reaches_every_parameter(config, name):
    run = config["runs"].get(f"toy_{name}")
    if run is None:
        assert "weights" in config["runs"][name] or config["runs"][name]["dataset"].startswith("digits")
        return
    task = process.build(run["process"])
    latent = run["net"]["kind"] in LATENT
    shape = (
        {"input_size": 4, "channels": 4, "num_classes": 10}
        if latent
        else {"resolution": 32, "channels": 3, "augment_labels": task.augment_labels}
    )
    net = loudly(build({**run["net"], **shape})).train()
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


def test_toys_of_different_runs_differ(config):
    """But for runs that differ in their length or their data alone, which toys do not have."""
    alike = {}
    for name, run in config["runs"].items():
        if name.startswith("toy_") and "edm_length" not in name and "imagenet512" not in name:
            key = yaml.safe_dump([run["net"], run["process"], run["training"], run["sampler"]])
            alike.setdefault(key, []).append(name)
    assert all(len(names) == 1 for names in alike.values()), alike
