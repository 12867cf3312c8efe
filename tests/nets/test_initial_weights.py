"""The initial weights of each group of parameters have the distribution of the group's reference.

References: EDM for Song's networks, DiT for networks of latents. Image-space DiffiT is described in
:func:`diffit.nets.layers.initialize_image_network`.
"""

import re

import pytest
import torch

from diffit.nets import build
from diffit.nets.song import SongConfig, SongUNet

IMAGE = {"resolution": 16, "channels": 3, "augment_labels": 9}
LATENT = {"input_size": 8, "channels": 4, "num_classes": 50}
SHAPED = {
    "kind": "ushaped", "width": 64, "multipliers": [1, 2], "blocks": 1, "window": 4, "head_dim": 16, "mlp_ratio": 2,
    "time_dim": 64, "groups": 8, "dropout": 0.0,
}  # fmt: skip
VIT = {
    "kind": "vit", "patch_size": 2, "width": 32, "multipliers": [1], "depth": 4, "head_dim": 16, "mlp_ratio": 2,
    "decoder_dim": 32, "time_dim": 64, "groups": 8, "dropout": 0.0,
}  # fmt: skip
BLOCKS = {"patch_size": 2, "hidden_size": 96, "depth": 2, "num_heads": 4, "mlp_ratio": 2}
SONG = {
    "kind": "song", "width": 64, "multipliers": [1, 2], "blocks": 1, "attention_resolution": 8, "dropout": 0.0,
}  # fmt: skip


def glorot(weight):
    return (2 / (weight[0].numel() + weight.numel() / weight.shape[1])) ** 0.5


def glorot_of_patches(weight):
    return (2 / (weight[0].numel() + len(weight))) ** 0.5  # a convolution over patches that do not overlap


def fan_in(weight):
    return weight[0].numel() ** -0.5


def constant(value):
    return lambda weight: value


UNIFORM, NORMAL = "uniform", "normal"
GLOROT, KAIMING = (glorot, 1.0, UNIFORM), (fan_in, 1.0, NORMAL)
ATTENTION, NEARLY_ZERO = (glorot, 0.2**0.5, UNIFORM), (glorot, 1e-5, UNIFORM)
SMALL = (constant(1), 0.02, NORMAL)
ZERO, ONE = 0.0, 1.0

# For each network, (pattern of parameter names, law) in order; the first pattern that is found decides.
# A law is the value of all parameters, or (unit, standard deviation in this unit, shape of the distribution).
NORMS = [(r"(norm\d?|head\.0)\.weight$", ONE), (r"bias$", ZERO)]
SONG_LAWS = [
    *NORMS,
    (r"(conv1|head\.2|attention\.proj)\.weight$", NEARLY_ZERO),
    (r"attention\.qkv\.weight$", ATTENTION),
    (r"attention\.qkv_temb\.weight$", ATTENTION),
    (r"bias_table$", SMALL),
    (r"^(tokenizer|inputs)|conv0|skip", GLOROT),
    (r"^(mlp|augment)|\.time\.", GLOROT),
]
IMAGE_LAWS = [
    (r"^decoder\.branches\.\d\.[147]\.weight$", ONE),  # group norms
    *NORMS,
    (r"head(\.2)?\.weight$", ZERO),
    (r"bias_table$", SMALL),
    (r"\.scale$", ONE),
    (r"\.position$", SMALL),
    (r"attn\.(qkv|qkv_temb|proj|table_temb|v_temb)\.weight$|\d\.(qkv|proj)\.weight$", GLOROT),
    (r"mlp\.fc|mlp_temb|project\.weight$", GLOROT),
    (r"^time_embedding", GLOROT),
    (r"conv|tokenizer|samplers|joins|laterals|branches|channels", KAIMING),
]
LATENT_LAWS = [
    (r"bias$", ZERO),
    (r"^final_layer\.linear|modulation\.weight$", ZERO),
    (r"^(y_embedder|t_embedder)", SMALL),
    (r"bias_table$", SMALL),
    (r"^x_embedder", (glorot_of_patches, 1.0, UNIFORM)),
    (r"attn\.(qkv|qkv_temb|proj)\.weight$", GLOROT),
    (r"mlp\.fc", GLOROT),
]
NETWORKS = {
    **{
        f"{form}{' with TMSA' if tmsa else ''}": ({**SONG, **IMAGE, "form": form, "tmsa": tmsa}, SONG_LAWS)
        for form in ("ddpmpp", "ncsnpp")
        for tmsa in (False, True)
    },
    "ushaped": ({**SHAPED, **IMAGE}, IMAGE_LAWS),
    "ushaped, time in bias": ({**SHAPED, **IMAGE, "transformer": "time-in-bias"}, IMAGE_LAWS),
    "ushaped, vit stages": ({**SHAPED, **IMAGE, "encoder": "vit", "resizing": "bilinear"}, IMAGE_LAWS),
    "vit": ({**VIT, **IMAGE}, IMAGE_LAWS),
    "latent": ({"kind": "latent", **BLOCKS, **LATENT}, LATENT_LAWS),
    "dit": ({"kind": "dit", **BLOCKS, **LATENT, "conditioning": "adaln-zero"}, LATENT_LAWS),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_group_of_parameters_has_its_initial_distribution(name):
    spec, laws = NETWORKS[name]
    torch.manual_seed(0)
    groups: dict[str, tuple] = {}
    for parameter_name, parameter in build(spec).named_parameters():
        pattern, law = next(
            ((pattern, law) for pattern, law in laws if re.search(pattern, parameter_name)), (None, None)
        )
        assert pattern, f"{parameter_name} is in no group"
        if isinstance(law, float):
            assert (parameter == law).all(), parameter_name
        else:
            unit, gain, shape = law
            values = parameter.detach().flatten() / (unit(parameter) * gain)
            groups.setdefault(pattern, (shape, []))[1].append(values)
    assert len(groups) >= 4
    for pattern, (shape, parts) in groups.items():
        values = torch.cat(parts)
        error = 4 / len(values) ** 0.5
        assert values.mean().abs() < error, pattern
        assert values.std().item() == pytest.approx(1, abs=error), pattern
        largest = values.abs().max().item()
        assert (largest <= 3**0.5 * 1.001) == (shape == UNIFORM), pattern


@pytest.mark.parametrize("tmsa", [False, True])
def test_queries_keys_and_values_of_the_shipped_width_have_edms_standard_deviation(tmsa):
    with torch.device("meta"):
        net = SongUNet(SongConfig(8, 3, "ddpmpp", 128, (2,), 1, 8, tmsa, 0.0, 0))
    net.to_empty(device="cpu").initialize_weights()
    weights = [parameter for name, parameter in net.named_parameters() if "qkv.weight" in name]
    assert len(weights) == 3
    assert torch.stack(weights).std().item() == pytest.approx(0.0198, rel=0.005)
