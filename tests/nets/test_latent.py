"""The latent network matches the released one; its position biases are cached and its weights loaded safely."""

import dataclasses

import pytest
import torch
from helpers.differences import assert_close
from helpers.goldens import GOLDENS, released

from diffit.cli import UserError
from diffit.nets.latent import FinalLayer, LatentConfig, LatentDiffiT, load_released, position_table
from diffit.nets.layers import TMSA, cached_position_bias, relative_position_index
from diffit.nets.ushaped import UShapedConfig, UShapedDiffiT

TINY = LatentConfig(
    input_size=8, channels=4, patch_size=2, hidden_size=16, depth=2, num_heads=2, mlp_ratio=2, num_classes=5
)
IMAGENET256 = LatentConfig(
    input_size=32, channels=4, patch_size=2, hidden_size=1152, depth=28, num_heads=16, mlp_ratio=4, num_classes=1000
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomized(net, std=0.1):
    """The network with random parameters, because some are initialized with 0 and would hide effects."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, std)
    return net


def inputs(batch=2):
    return torch.randn(batch, 4, 8, 8), torch.randint(1000, (batch,)), torch.randint(5, (batch,))


@pytest.fixture
def builds(monkeypatch):
    """A list of the TMSA layers that built a position bias, in order."""
    built, build = [], TMSA.position_bias
    monkeypatch.setattr(TMSA, "position_bias", lambda self: built.append(self) or build(self))
    return built


@pytest.mark.parametrize("name", GOLDENS)
def test_released_weights_load_and_give_the_released_networks_output(golden, name):
    g = golden(name)
    net = LatentDiffiT(GOLDENS[name])
    load_released(net, released(g))
    with torch.no_grad():
        out = net(g["x"], g["t"], g["y"])
    assert_close("latent network against the released code", out, g["out"], 1e-5)


@pytest.mark.parametrize("name", GOLDENS)
def test_the_position_table_is_the_released_one_to_the_bit(golden, name):
    config = GOLDENS[name]
    assert torch.equal(position_table(config.grid, config.hidden_size), golden(name)["state.pos_embed"])


@pytest.mark.parametrize(("input_size", "count"), [(32, 561_330_144), (64, 563_562_464)], ids=["256", "512"])
def test_the_imagenet_networks_have_the_papers_number_of_parameters(input_size, count):
    with torch.device("meta"):
        net = LatentDiffiT(dataclasses.replace(IMAGENET256, input_size=input_size))
    assert sum(parameter.numel() for parameter in net.parameters()) + net.pos_embed.numel() == count


def test_an_untrained_network_returns_zeros_and_can_learn():
    net = LatentDiffiT(TINY)
    out = net(*inputs())
    assert torch.equal(out, torch.zeros(2, 8, 8, 8))
    (out - 1).square().mean().backward()
    assert net.final_layer.linear.weight.grad.abs().max() > 0


def test_the_patch_embedding_is_initialized_as_a_linear_layer():
    weight = LatentDiffiT(dataclasses.replace(TINY, hidden_size=64)).x_embedder.proj.weight
    bound = (6 / (4 * 2 * 2 + 64)) ** 0.5  # Glorot, with the 16 values of a patch as inputs
    assert 0.95 * bound < weight.abs().max() <= bound


def test_all_layer_norms_add_1e_6_to_the_variance():
    net = LatentDiffiT(TINY)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 2 * TINY.depth + 1 and norms[-1] is net.final_layer.norm
    values = torch.tensor([1e-3, -1e-3]).repeat(8)
    for norm in norms:
        assert torch.allclose(norm(values), values / (2e-6) ** 0.5)


def test_a_token_becomes_the_output_patch_at_its_position():
    layer = FinalLayer(16, channels=3, patch=2)
    tokens = torch.randn(1, 16, 16)
    changed = tokens.clone()
    changed[0, 6] = torch.randn(16)  # row 1, column 2 of the 4 × 4 grid
    difference = (layer(tokens, grid=4) - layer(changed, grid=4)).abs()[0]
    assert (difference[:, 2:4, 4:6] > 0).all()
    difference[:, 2:4, 4:6] = 0
    assert difference.max() == 0


@pytest.mark.parametrize("which", ["timestep", "label"])
def test_an_output_depends_only_on_the_timestep_and_label_of_its_image(which):
    net = randomized(LatentDiffiT(TINY))
    x, t, labels = inputs(3)
    other_t, other_labels = t.clone(), labels.clone()
    if which == "timestep":
        other_t[1] = (t[1] + 500) % 1000
    else:
        other_labels[1] = TINY.num_classes  # no label
    difference = (net(x, t, labels) - net(x, other_t, other_labels)).abs().amax(dim=(1, 2, 3))
    assert difference[1] > 1e-4
    assert torch.equal(difference[[0, 2]], torch.zeros(2))


def test_an_unconditional_network_has_only_the_embedding_of_no_label():
    net = LatentDiffiT(dataclasses.replace(TINY, num_classes=0))
    assert net.y_embedder.embedding_table.weight.shape == (1, 16)
    assert net(*inputs()[:2], torch.zeros(2, dtype=torch.int64)).shape == (2, 8, 8, 8)


def test_checkpointing_does_not_change_gradients():
    net, gradients, batch = randomized(LatentDiffiT(TINY)), [], inputs()
    for net.checkpoint_blocks in (False, True):
        net.zero_grad()
        net(*batch).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_network_runs_under_bfloat16_autocast_with_position_biases_of_that_precision():
    net, batch = randomized(LatentDiffiT(TINY)), inputs()
    full = net(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = net(*batch)
        with cached_position_bias(net), torch.no_grad():
            assert net.blocks[0].attn.position_bias().dtype == torch.bfloat16
            constant = net(*batch)
    for out in (reduced, constant):
        assert torch.allclose(out.float(), full, atol=0.05 * full.abs().max().item())


@torch.no_grad()
def test_each_cached_position_bias_is_built_once_and_the_output_does_not_change(builds):
    net, batch = randomized(LatentDiffiT(TINY), std=0.3), inputs()
    outside = net(*batch)
    builds.clear()
    with cached_position_bias(net):
        inside = [net(*batch) for _ in range(3)]
    assert builds == [block.attn for block in net.blocks]
    assert all(torch.equal(out, outside) for out in inside)


@torch.no_grad()
def test_the_cache_also_works_for_the_windows_of_the_image_space_network(builds):
    net = randomized(
        UShapedDiffiT(
            UShapedConfig(
                resolution=8, channels=3, width=16, multipliers=(1, 2), blocks=1, window=4, head_dim=8, mlp_ratio=2,
                time_dim=24, groups=4, dropout=0.0, augment_labels=0,
            )
        )
    )  # fmt: skip
    x, noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    outside = net(x, noise)
    builds.clear()
    with cached_position_bias(net):
        assert torch.equal(net(x, noise), outside)
        net(x, noise)
    assert len(builds) == 3


@pytest.mark.parametrize("change", ["load", "step", "fused step"])
def test_a_position_bias_is_never_stale_after_the_weights_changed(change):
    net, batch = randomized(LatentDiffiT(TINY), std=0.3), inputs()

    def change_weights():
        if change == "load":
            net.load_state_dict(randomized(LatentDiffiT(TINY), std=0.3).state_dict())
        else:
            net(*batch).square().mean().backward()
            torch.optim.AdamW(net.parameters(), lr=0.1, fused=change == "fused step").step()

    def biases():
        return [block.attn.position_bias().clone() for block in net.blocks]

    def fresh():
        tables = [block.attn.relative_position_bias_table for block in net.blocks]
        return [table[relative_position_index((4, 4))].permute(2, 0, 1) for table in tables]

    def same(ours, theirs):
        return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

    with cached_position_bias(net):
        before = biases()
    change_weights()
    assert same(biases(), fresh())
    with cached_position_bias(net):
        assert same(biases(), fresh())
        assert not same(biases(), before)
    with pytest.raises(AssertionError, match="position bias table changed"), cached_position_bias(net):
        change_weights()
    assert same(biases(), fresh())


def test_an_exception_within_the_cache_is_passed_on_and_discards_the_cache():
    net, batch = randomized(LatentDiffiT(TINY)), inputs()
    with pytest.raises(KeyError), cached_position_bias(net):
        raise KeyError
    net(*batch).square().mean().backward()
    assert net.blocks[0].attn.relative_position_bias_table.grad.abs().max() > 0


def test_loading_ignores_the_index_of_the_position_bias():
    net, source = LatentDiffiT(TINY), randomized(LatentDiffiT(TINY))
    state = source.state_dict()
    load_released(net, {**state, "blocks.0.attn.relative_position_index": torch.zeros(1)})
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def damaged(state, how):
    if how == "missing":
        del state["blocks.1.attn.qkv_temb.bias"]
    elif how == "unexpected":
        state["blocks.2.mlp.fc1.bias"] = torch.zeros(32)
    elif how == "shape":
        state["y_embedder.embedding_table.weight"] = torch.zeros(11, 16)
    elif how == "dtype":
        state["final_layer.linear.bias"] = state["final_layer.linear.bias"].half()
    return state


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", r"\(missing: blocks.1.attn.qkv_temb.bias\)"),
        ("unexpected", r"\(unexpected: blocks.2.mlp.fc1.bias\)"),
        ("shape", r"y_embedder.embedding_table.weight is float32 \[11, 16\] and should be float32 \[6, 16\]"),
        ("dtype", r"final_layer.linear.bias is float16 \[32\] and should be float32 \[32\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_differences_and_nothing_is_loaded(how, said):
    net = LatentDiffiT(TINY)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=said):
        load_released(net, damaged(randomized(LatentDiffiT(TINY)).state_dict(), how))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_weights_of_another_resolution_and_incomplete_weights_are_refused():
    with torch.device("meta"):
        net, other = (LatentDiffiT(dataclasses.replace(IMAGENET256, input_size=size)) for size in (32, 64))
    with pytest.raises(UserError, match=r"pos_embed is float32 \[1, 1024, 1152\] and should .* and 26 more\)"):
        load_released(net, other.state_dict())
    with pytest.raises(UserError, match=r"missing: pos_embed, .* and \d+ more\)"):
        load_released(net, {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_size": 3},
        {"num_heads": 3},
        {"hidden_size": 18},
        {"depth": 0},
        {"mlp_ratio": 0},
        {"num_classes": -1},
        {"input_size": 0},
    ],
)
def test_inconsistent_values_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(TINY, **wrong)
