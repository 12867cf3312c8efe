"""The registry of networks: what ``net.kind`` can be."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffit.cli import UserError
from diffit.registry import BOOLEAN, COUNT, COUNTS, POSITIVE, Registry, default, one_of, optional
from diffit.registry.settings import Setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """One kind of network.

    Args:
        name: what ``net.kind`` says.
        description: one sentence for people.
        module: where its classes are; imported when a network is built, and part of the fingerprint of its runs only.
        config: the class of its shape, whose fields are ``settings`` and what follows from the data.
        network: the class of the network, built of a ``config``.
        sees: ``images`` or ``latents``; a network for latents takes labels as well.
        settings: the keys of ``net`` in a run.
    """

    name: str
    description: str
    module: str
    config: str
    network: str
    sees: str
    settings: Mapping[str, Setting]

    def build(self, fields: dict) -> "nn.Module":
        """The untrained network with these fields of its config. Raises TypeError or ValueError for wrong ones."""
        module = importlib.import_module(self.module)
        return getattr(module, self.network)(getattr(module, self.config)(**fields))


_DROPOUT = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
_MLP_RATIO = default(POSITIVE, 4)
_CELL = one_of("diffit", "vit")
_TRANSFORMER = {
    "patch_size": COUNT,
    "hidden_size": COUNT,
    "depth": COUNT,
    "num_heads": COUNT,
    "mlp_ratio": _MLP_RATIO,
}

NETWORKS: Registry[Network] = Registry(
    "network",
    Network(
        name="ushaped",
        description="image-space DiffiT: a U of residual cells with windowed TMSA (Figure 4)",
        module="diffit.nets.ushaped",
        config="UShapedConfig",
        network="UShapedDiffiT",
        sees="images",
        settings={
            "width": COUNT,
            "multipliers": COUNTS,
            "blocks": COUNT,
            "window": COUNT,
            "head_dim": COUNT,
            "mlp_ratio": _MLP_RATIO,
            "time_dim": COUNT,
            "groups": COUNT,
            "dropout": _DROPOUT,
            # The ablations' parts.
            "transformer": optional(one_of("tmsa", "separate", "time-in-bias", "time-in-mlp")),
            "time_embedding": optional(one_of("positional", "fourier")),
            "resizing": optional(one_of("convolution", "bilinear")),
            "encoder": optional(_CELL),
            "decoder": optional(_CELL),
        },
    ),
    Network(
        name="vit",
        description="a vision transformer with a convolutional decoder: configurations A and B of Table 4",
        module="diffit.nets.vit",
        config="ViTConfig",
        network="ViTSETR",
        sees="images",
        settings={
            "patch_size": COUNT,
            "width": COUNT,
            "multipliers": COUNTS,
            "depth": COUNT,
            "head_dim": COUNT,
            "mlp_ratio": _MLP_RATIO,
            "decoder_dim": COUNT,
            "time_dim": COUNT,
            "groups": COUNT,
            "dropout": _DROPOUT,
        },
    ),
    Network(
        name="song",
        description="DDPM++ and NCSN++, with self-attention or with TMSA in its place (Table 5)",
        module="diffit.nets.song",
        config="SongConfig",
        network="SongUNet",
        sees="images",
        settings={
            "form": one_of("ddpmpp", "ncsnpp"),
            "width": COUNT,
            "multipliers": COUNTS,
            "blocks": COUNT,
            "attention_resolution": COUNT,
            "tmsa": BOOLEAN,
            "dropout": _DROPOUT,
        },
    ),
    Network(
        name="latent",
        description="latent DiffiT: transformer blocks with TMSA over patches of latents (Figure 3)",
        module="diffit.nets.latent",
        config="LatentConfig",
        network="LatentDiffiT",
        sees="latents",
        settings=_TRANSFORMER,
    ),
    Network(
        name="dit",
        description="DiT with its adaptive layer norm, or with TMSA in its place (Figure 7 b)",
        module="diffit.nets.dit",
        config="DiTConfig",
        network="DiT",
        sees="latents",
        settings={**_TRANSFORMER, "conditioning": one_of("adaln-zero", "tmsa")},
    ),
)


def build(spec: dict) -> "nn.Module":
    """A network from its description: ``kind`` and the fields of its config, with lists for tuples.

    Raises :class:`UserError` for an unknown kind or field and for values that do not go together.
    """
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
    network = NETWORKS[fields.pop("kind")]
    try:
        return network.build(fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"net: {error}") from None


def takes_labels(kind: str) -> bool:
    """Whether networks of a kind take labels: the ones for latents do."""
    return NETWORKS[kind].sees == "latents"
