"""The registry of networks, which the configuration selects by ``net.kind``."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffit.cli import UserError
from diffit.nets import shapes
from diffit.registry import BOOLEAN, COUNT, POSITIVE, Registry, by_kind, default, one_of, optional
from diffit.registry.settings import Setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """One kind of network.

    Args:
        name: value of ``net.kind``.
        description: one sentence for the documentation.
        module: module with the two classes below. It is imported only when a network is built, so it enters the
            fingerprints of its own runs only.
        config: name of the configuration class; its fields are ``settings`` and the sizes that follow from the data.
        network: name of the network class, whose constructor takes a ``config``.
        sees: ``images`` or ``latents``; networks for latents also take labels.
        settings: the other keys of ``net`` in the configuration of a run.
        check: raises ValueError if the settings do not fit each other or the ``resolution`` of the images, which is
            among its fields. It imports no torch, because every start of Snakemake calls it.
    """

    name: str
    description: str
    module: str
    config: str
    network: str
    sees: str
    settings: Mapping[str, Setting]
    check: Callable[[Mapping], None] = lambda fields: None

    def build(self, fields: dict) -> "nn.Module":
        """Build the untrained network from the fields of its configuration class.

        Raises TypeError for unknown or missing fields and ValueError for invalid values.
        """
        module = importlib.import_module(self.module)
        return getattr(module, self.network)(getattr(module, self.config)(**fields))


_SIZE = {**COUNT, "maximum": 65_536}
_DEPTH = {**COUNT, "maximum": 1_000}
_MULTIPLIERS = {"type": "array", "minItems": 1, "maxItems": 12, "items": {**COUNT, "maximum": 256}}
_DROPOUT = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
_MLP_RATIO = default({**POSITIVE, "maximum": 256}, 4)
_CELL = one_of("diffit", "vit")
_TRANSFORMER = {
    "patch_size": _SIZE,
    "hidden_size": _SIZE,
    "depth": _DEPTH,
    "num_heads": _SIZE,
    "mlp_ratio": _MLP_RATIO,
}

NETWORKS: Registry[Network] = Registry(
    "network",
    Network(
        name="ushaped",
        description="image-space DiffiT: a U-shaped network of residual cells with windowed TMSA (Figure 4)",
        module="diffit.nets.ushaped",
        config="UShapedConfig",
        network="UShapedDiffiT",
        sees="images",
        settings={
            "width": _SIZE,
            "multipliers": _MULTIPLIERS,
            "blocks": _DEPTH,
            "window": _SIZE,
            "head_dim": _SIZE,
            "mlp_ratio": _MLP_RATIO,
            "time_dim": _SIZE,
            "groups": _SIZE,
            "dropout": _DROPOUT,
            # Alternatives for the ablations (Tables 4, 6, 7, 8 and Section I.1).
            "transformer": optional(one_of("tmsa", "separate", "time-token", "time-in-bias", "time-in-mlp")),
            "time_embedding": optional(one_of("positional", "fourier")),
            "resizing": optional(one_of("convolution", "bilinear")),
            "encoder": optional(_CELL),
            "decoder": optional(_CELL),
        },
        check=shapes.check_ushaped,
    ),
    Network(
        name="vit",
        description="vision transformer with a convolutional decoder: configurations A and B of Table 4",
        module="diffit.nets.vit",
        config="ViTConfig",
        network="ViTSETR",
        sees="images",
        settings={
            "patch_size": _SIZE,
            "width": _SIZE,
            "multipliers": _MULTIPLIERS,
            "depth": _DEPTH,
            "head_dim": _SIZE,
            "mlp_ratio": _MLP_RATIO,
            "decoder_dim": _SIZE,
            "time_dim": _SIZE,
            "groups": _SIZE,
            "dropout": _DROPOUT,
        },
        check=shapes.check_vit,
    ),
    Network(
        name="song",
        description="DDPM++ and NCSN++, with self-attention or TMSA (Table 5)",
        module="diffit.nets.song",
        config="SongConfig",
        network="SongUNet",
        sees="images",
        settings={
            "form": one_of("ddpmpp", "ncsnpp"),
            "width": _SIZE,
            "multipliers": _MULTIPLIERS,
            "blocks": _DEPTH,
            "attention_resolution": _SIZE,
            "tmsa": BOOLEAN,
            "dropout": _DROPOUT,
        },
        check=shapes.check_song,
    ),
    Network(
        name="latent",
        description="latent DiffiT: transformer blocks with TMSA on patches of latents (Figure 3)",
        module="diffit.nets.latent",
        config="LatentConfig",
        network="LatentDiffiT",
        sees="latents",
        settings=_TRANSFORMER,
    ),
    Network(
        name="dit",
        description="DiT with adaptive layer norm or TMSA (Figure 7 b)",
        module="diffit.nets.dit",
        config="DiTConfig",
        network="DiT",
        sees="latents",
        settings={**_TRANSFORMER, "conditioning": one_of("adaln-zero", "tmsa")},
    ),
)


def build(spec: dict) -> "nn.Module":
    """Build a network from its specification: ``kind`` and the fields of its configuration class (lists for tuples).

    Raises :class:`UserError` for an unknown kind, unknown fields and inconsistent values.
    """
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
    network = NETWORKS[fields.pop("kind")]
    try:
        return network.build(fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"net: {error}") from None


def schema() -> dict:
    """The JSON schema of a run's ``net`` in the configuration."""
    return by_kind("kind", {name: network.settings for name, network in NETWORKS.items()}, "ushaped")


def takes_labels(kind: str) -> bool:
    """Whether networks of a kind take class labels; only networks for latents do."""
    return NETWORKS[kind].sees == "latents"
