"""Small networks for which there are reference weights, inputs and outputs: the released latent network, and EDM's."""

import re

from diffit.nets.latent import LatentConfig
from diffit.nets.song import SongConfig

GOLDENS = {
    "latent_diffit_constant_cfg": LatentConfig(
        input_size=36, channels=4, patch_size=4, hidden_size=32, depth=2, num_heads=2, mlp_ratio=4, num_classes=7
    ),
    "latent_diffit_power_cosine": LatentConfig(
        input_size=8, channels=4, patch_size=2, hidden_size=48, depth=3, num_heads=4, mlp_ratio=4, num_classes=10
    ),
}
SONG = {
    f"song_{form}": SongConfig(
        resolution=32, channels=3, form=form, width=16, multipliers=(1, 2), blocks=1, attention_resolution=16,
        tmsa=False, dropout=0.0, augment_labels=0,
    )
    for form in ("ddpmpp", "ncsnpp")
}  # fmt: skip

# Our names for the layers of SONG's networks, by EDM's names. Our decoder counts its levels from the coarsest one.
_LAYERS = {
    "map_noise.freqs": "frequencies",
    "map_layer0": "mlp.0",
    "map_layer1": "mlp.2",
    "enc.32x32_conv": "tokenizer",
    "enc.32x32_block0": "encoder.0.0",
    "enc.16x16_down": "encoder.1.0",
    "enc.16x16_block0": "encoder.1.1",
    "enc.16x16_aux_residual": "inputs.0",
    "dec.16x16_in0": "middle.0",
    "dec.16x16_in1": "middle.1",
    "dec.16x16_block0": "decoder.0.0",
    "dec.16x16_block1": "decoder.0.1",
    "dec.32x32_up": "decoder.1.0",
    "dec.32x32_block0": "decoder.1.1",
    "dec.32x32_block1": "decoder.1.2",
    "dec.32x32_aux_norm": "head.0",
    "dec.32x32_aux_conv": "head.2",
    "affine": "time",
    "qkv": "attention.qkv",
    "proj": "attention.proj",
}


def released(tensors):
    """The state dict in a file of reference tensors."""
    return {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}


def from_edm(state):
    """The state dict of a network of ``SONG`` for the one of EDM's network.

    EDM's queries, keys and values take turns in the channels; ours follow each other. EDM's time embedding has sines
    before cosines; ours has them after.
    """
    ours = {}
    for name, value in state.items():
        if name.endswith("resample_filter"):  # follows from the form
            continue
        if ".qkv." in name:
            value = value.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
        if name == "map_layer0.weight":
            value = value.roll(value.shape[1] // 2, dims=1)
        ours[re.sub("|".join(map(re.escape, _LAYERS)), lambda match: _LAYERS[match[0]], name)] = value
    return ours
