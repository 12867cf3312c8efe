"""The layers of DiffiT compute their equations, and the U-shaped network has the structure of the paper's tables."""

import dataclasses

import pytest
import torch

from diffit.nets.layers import (
    MLP,
    TMSA,
    DiffiTResBlock,
    DiffiTTransformer,
    TimeEmbedding,
    fit_window,
    merge,
    partition,
    positional_embedding,
    relative_position_index,
)
from diffit.nets.ushaped import UShapedConfig, UShapedDiffiT

DIGITS = UShapedConfig(
    resolution=8,
    channels=3,
    width=48,
    multipliers=(1, 2),
    blocks=2,
    window=4,
    head_dim=16,
    mlp_ratio=4,
    time_dim=128,
    groups=8,
    dropout=0.0,
    augment_labels=0,
)
TINY = dataclasses.replace(DIGITS, width=16, groups=4, head_dim=8, time_dim=24, mlp_ratio=2, blocks=1)
CIFAR10 = UShapedConfig(
    resolution=32,
    channels=3,
    width=128,
    multipliers=(2, 2, 2),
    blocks=4,
    window=4,
    head_dim=64,
    mlp_ratio=4,
    time_dim=512,
    groups=32,
    dropout=0.13,
    augment_labels=9,
)
FFHQ64 = dataclasses.replace(CIFAR10, resolution=64, multipliers=(1, 2, 2, 2), window=8, dropout=0.05)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomized(module, std=0.3):
    """The module with random parameters, because some are initialized with 0 and would hide effects."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, std)
    return module


def resblock(**changes):
    shape = {"grid": 8, "window": 4, "head_dim": 8, "mlp_ratio": 2, "groups": 4, "dropout": 0.0}
    return randomized(DiffiTResBlock(16, 12, **{**shape, **changes}))


def test_relative_position_index_numbers_the_offsets_of_all_pairs():
    h, w = 3, 5
    index = relative_position_index((h, w))
    offsets = [(dy, dx) for dy in range(-h + 1, h) for dx in range(-w + 1, w)]
    for query in range(h * w):
        for key in range(h * w):
            (qy, qx), (ky, kx) = divmod(query, w), divmod(key, w)
            assert offsets[index[query, key]] == (qy - ky, qx - kx)


def test_relative_position_index_equals_that_of_the_released_network(golden):
    released = golden("latent_diffit_power_cosine")["state.blocks.0.attn.relative_position_index"]
    assert torch.equal(relative_position_index((4, 4)), released)


def test_a_transformer_block_has_the_parameters_of_the_released_network(golden):
    prefix = "state.blocks.0."
    state = golden("latent_diffit_power_cosine")
    released = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    del released["attn.relative_position_index"]  # follows from the grid
    DiffiTTransformer(48, 48, 4, (4, 4), mlp_ratio=4).load_state_dict(released)


@pytest.mark.parametrize("windows", [1, 3])
def test_tmsa_is_attention_of_spatial_tokens_concatenated_with_the_time_token(windows):
    dim, time_dim, heads, grid = 12, 10, 3, (2, 3)
    tmsa = randomized(TMSA(dim, time_dim, heads, grid)).double()
    x = torch.randn(2 * windows, 6, dim, dtype=torch.float64)
    time = torch.randn(2, time_dim, dtype=torch.float64)

    # Below Eq. 5: one linear projection of each spatial token, concatenated with the time token.
    weight = torch.cat([tmsa.qkv.weight, tmsa.qkv_temb.weight], dim=1)
    bias = tmsa.qkv.bias + tmsa.qkv_temb.bias
    expected = torch.empty_like(x)
    for i, tokens in enumerate(x):
        both = torch.cat([tokens, time[i // windows].expand(6, -1)], dim=1)
        q, k, v = (both @ weight.T + bias).split(dim, dim=1)
        for head in range(heads):
            part = slice(4 * head, 4 * head + 4)
            b = tmsa.relative_position_bias_table[tmsa.relative_position_index, head]
            attention = torch.softmax(q[:, part] @ k[:, part].T / 4**0.5 + b, dim=1)  # Eq. 6
            expected[i, :, part] = attention @ v[:, part]
    expected = expected @ tmsa.proj.weight.T + tmsa.proj.bias
    assert torch.allclose(tmsa(x, time), expected, atol=1e-12)


def test_a_transformer_block_adds_attention_and_then_mlp_to_its_tokens():
    block = randomized(DiffiTTransformer(16, 12, 2, (4, 4), mlp_ratio=2))
    x, time = torch.randn(2, 16, 16), torch.randn(2, 12)
    norm = lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()  # noqa: E731
    hat = block.attn(norm(x), time) + x  # Eq. 7
    assert torch.allclose(block(x, time), block.mlp(norm(hat)) + hat, atol=1e-5)  # Eq. 8


def test_a_residual_cell_is_convolution_and_transformer_plus_its_input():
    block = resblock(window=8)
    x, time = torch.randn(2, 16, 8, 8), torch.randn(2, 12)
    normal = block.norm(x)
    hat = block.conv(normal * normal.sigmoid())  # Eq. 9
    tokens = block.transformer(hat.flatten(2).mT, time)  # Eq. 10
    assert torch.allclose(block(x, time), tokens.mT.unflatten(2, (8, 8)) + x, atol=1e-5)


def test_an_mlp_is_two_linear_layers_around_a_gelu():
    mlp = randomized(MLP(4, 8))
    x = torch.randn(3, 4)
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    assert torch.allclose(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias, atol=2e-3)


def test_positional_embedding_holds_cosines_and_sines_of_falling_frequencies():
    out = positional_embedding(torch.tensor([0.0, 2.0]), 4)
    two = torch.tensor([2.0, 0.02])  # frequencies 1 and 1/100
    assert torch.allclose(out, torch.stack([torch.tensor([1.0, 1, 0, 0]), torch.cat([two.cos(), two.sin()])]))


def test_zero_augmentation_labels_do_not_change_the_time_token():
    embedding = randomized(TimeEmbedding(8, 16, augment_labels=9))
    noise = torch.randn(3)
    assert torch.equal(embedding(noise, torch.zeros(3, 9)), embedding(noise))
    assert not torch.allclose(embedding(noise, torch.ones(3, 9)), embedding(noise))


def test_merge_inverts_partition_and_a_window_contains_neighboring_pixels():
    x = torch.randn(2, 3, 8, 8)
    tokens = partition(x, 4)
    assert torch.equal(merge(tokens, 8, 4), x)
    assert torch.equal(tokens[4 + 1], x[1, :, :4, 4:].flatten(1).T)  # second image, upper right window


def test_attention_does_not_leak_between_windows():
    block = resblock()
    x = torch.randn(1, 16, 8, 8)
    tokens = partition(x, 4)
    changed = tokens.clone()
    changed[2] += 1.0
    time = torch.randn(1, 12)
    difference = (block.transformer(changed, time) - block.transformer(tokens, time)).abs().amax(dim=(1, 2))
    assert difference[2] > 0
    assert torch.equal(difference[[0, 1, 3]], torch.zeros(3))


def test_a_window_is_limited_to_the_grid_and_must_divide_it():
    assert fit_window(grid=8, window=16) == 8
    with pytest.raises(ValueError, match=r"window 3 .* 8x8"):
        fit_window(grid=8, window=3)
    with pytest.raises(ValueError, match=r"window 6 .* 8x8"):
        UShapedDiffiT(dataclasses.replace(TINY, window=6))


@pytest.mark.parametrize("window", [4, 8])
def test_a_residual_cell_uses_the_time_token_of_each_image(window):
    block = resblock(window=window)
    x, time = torch.randn(3, 16, 8, 8), torch.randn(3, 12)
    other = time.clone()
    other[1] += 1.0
    difference = (block(x, time) - block(x, other)).abs().amax(dim=(1, 2, 3))
    assert difference[1] > 1e-3
    assert torch.equal(difference[[0, 2]], torch.zeros(2))


def test_every_residual_cell_of_the_network_gets_the_time_token():
    net = randomized(UShapedDiffiT(TINY))
    net(torch.randn(2, 3, 8, 8), torch.randn(2)).square().mean().backward()
    cells = [module for module in net.modules() if isinstance(module, DiffiTResBlock)]
    assert len(cells) == 3  # two encoder stages, one decoder stage
    assert all(cell.transformer.attn.qkv_temb.weight.grad.abs().max() > 0 for cell in cells)


def test_an_untrained_network_returns_zeros_and_can_learn():
    net = UShapedDiffiT(TINY)
    out = net(torch.randn(2, 3, 8, 8), torch.randn(2))
    assert torch.equal(out, torch.zeros(2, 3, 8, 8))
    (out - 1).square().mean().backward()
    assert net.head[-1].weight.grad.abs().max() > 0


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing_does_not_change_gradients_even_with_dropout(dropout):
    net = randomized(UShapedDiffiT(dataclasses.replace(TINY, dropout=dropout)), std=0.1)
    x, noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    gradients = []
    for net.checkpoint_blocks in (False, True):
        net.zero_grad()
        torch.manual_seed(1)
        net(x, noise).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_dropout_is_active_only_in_training():
    net = randomized(UShapedDiffiT(dataclasses.replace(TINY, dropout=0.5)), std=0.1)
    x, noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    assert not torch.equal(net(x, noise), net(x, noise))
    net.eval()
    assert torch.equal(net(x, noise), net(x, noise))


def test_skip_connections_carry_every_resolution_to_the_decoder():
    net = randomized(UShapedDiffiT(dataclasses.replace(TINY, multipliers=(1, 2, 2))), std=0.1).eval()
    x, noise = torch.randn(1, 3, 8, 8), torch.randn(1)
    before = net(x, noise)
    for upsampler in net.upsamplers:
        for parameter in upsampler.parameters():
            torch.nn.init.zeros_(parameter)
    assert not torch.allclose(net(x, noise), before)  # the coarser levels matter
    assert not torch.allclose(net(x + 1, noise), net(x, noise))  # and the finest level works without them


def test_augmentation_labels_reach_the_output():
    net = randomized(UShapedDiffiT(dataclasses.replace(TINY, augment_labels=9)), std=0.1)
    x, noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    assert torch.equal(net(x, noise, torch.zeros(2, 9)), net(x, noise))
    assert not torch.allclose(net(x, noise, torch.ones(2, 9)), net(x, noise))


def test_the_network_runs_under_bfloat16_autocast():
    net = randomized(UShapedDiffiT(TINY), std=0.1)
    x, noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    full = net(x, noise)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = net(x, noise)
    assert torch.allclose(reduced.float(), full, atol=0.05 * full.abs().max().item())
    reduced.float().square().mean().backward()


@pytest.mark.parametrize(
    ("config", "parameters", "grids"),
    [
        (DIGITS, 885_131, (8, 4)),
        (CIFAR10, 40_534_739, (32, 16, 8)),
        (FFHQ64, 45_771_107, (64, 32, 16, 8)),
    ],
    ids=["digits", "cifar10", "ffhq64"],
)
def test_presets_have_the_resolutions_of_the_tables_and_their_parameter_counts(config, parameters, grids):
    with torch.device("meta"):
        net = UShapedDiffiT(config)
    assert tuple(level.grid for level in config.levels) == grids
    assert [[block.grid for block in stage] for stage in net.encoder] == [[g] * config.blocks for g in grids]
    assert [[block.grid for block in stage] for stage in net.decoder] == [[g] * config.blocks for g in grids[:-1]]
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_the_output_of_a_cifar10_network_has_the_shape_of_its_input():
    net = UShapedDiffiT(dataclasses.replace(CIFAR10, width=16, groups=4, head_dim=8, time_dim=16, blocks=1))
    assert net(torch.randn(1, 3, 32, 32), torch.randn(1), torch.randn(1, 9)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": 6, "multipliers": (1, 1, 1)},
        {"head_dim": 7},
        {"groups": 5},
        {"multipliers": ()},
        {"multipliers": (1, 0)},
        {"dropout": 1.0},
        {"blocks": 0},
        {"augment_labels": -1},
        {"width": 15, "groups": 1, "head_dim": 1},
    ],
)
def test_inconsistent_values_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(TINY, **wrong)
