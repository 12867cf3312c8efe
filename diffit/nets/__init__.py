"""The networks by the name that ``net.kind`` has in the configuration."""

from torch import nn

from diffit.cli import UserError
from diffit.nets.dit import DiT, DiTConfig
from diffit.nets.latent import LatentConfig, LatentDiffiT
from diffit.nets.song import SongConfig, SongUNet
from diffit.nets.ushaped import UShapedConfig, UShapedDiffiT
from diffit.nets.vit import ViTConfig, ViTSETR

NETS = {
    "ushaped": (UShapedConfig, UShapedDiffiT),
    "vit": (ViTConfig, ViTSETR),
    "song": (SongConfig, SongUNet),
    "latent": (LatentConfig, LatentDiffiT),
    "dit": (DiTConfig, DiT),
}
LATENT = ("latent", "dit")  # those that see latents and labels


def build(spec: dict) -> nn.Module:
    """A network from its description: ``kind`` and the fields of its config, with lists for tuples.

    Raises :class:`UserError` for an unknown kind or field and for values that do not go together.
    """
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
    kind = fields.pop("kind")
    if kind not in NETS:
        raise UserError(f"net.kind is {kind!r}; there are: {', '.join(NETS)}")
    config_class, net_class = NETS[kind]
    try:
        return net_class(config_class(**fields))
    except (TypeError, ValueError) as error:
        raise UserError(f"net: {error}") from None
