"""The autoencoder between images and latents, and the only door to diffusers.

    python -m diffit.weights.vae SPEC_JSON OUT_FOLDER

takes over a published one, from a local folder or from the hub. A VAE stands in a folder of its own:

results/vaes/{vae}/vae.safetensors   weights of an AutoencoderKL, float32
results/vaes/{vae}/vae.json          their sha256, the shape of the network, and the scale of its latents

The scale is the number by which latents are multiplied before a diffusion sees them. It has its one home there.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from diffit.cli import Parser, UserError, json_argument, run_command
from diffit.store import files
from diffit.weights.vae_shape import factor_of

AGAIN = "delete its folder and ask for it again"
WEIGHTS = "vae.safetensors"


class VAE:
    """A frozen AutoencoderKL in float32, with its scale.

    Args:
        model: what diffusers calls AutoencoderKL.
        facts: ``sha256`` of the weights, ``scale``, ``channels`` of a latent, ``factor`` by which its sides are shorter
            than the image's. They are what a VAE is: latents, runs and samples carry them.
    """

    def __init__(self, model: nn.Module, facts: Mapping):
        self.model, self.facts = model.eval().requires_grad_(False), dict(facts)

    def to(self, device: torch.device) -> "VAE":
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] [B, 3, H, W] -> mean and standard deviation of the posterior, unscaled: [B, 2, C, h, w]."""
        posterior = self.model.encode(images).latent_dist
        return torch.stack([posterior.mean, posterior.std], dim=1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> images, float32 [B, 3, H, W], in [-1, 1] but for overshoots."""
        return self.model.decode((latents / self.facts["scale"]).float()).sample


def latent_size(resolution: int, factor: int) -> int:
    """Side of the latents of images of this resolution; :class:`UserError` where there is no such size."""
    if resolution % factor:
        raise UserError(
            f"the VAE shortens sides by {factor}, which does not divide the resolution {resolution}; "
            "choose another resolution or another VAE"
        )
    return resolution // factor


def build(shape: dict) -> nn.Module:
    """An untrained AutoencoderKL: ``latent_channels``, ``channels`` of each level, ``layers`` and ``groups``."""
    from diffusers import AutoencoderKL  # here, since diffusers takes seconds to import

    levels = len(shape["channels"])
    return AutoencoderKL(
        latent_channels=shape["latent_channels"],
        block_out_channels=tuple(shape["channels"]),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=shape["layers"],
        norm_num_groups=shape["groups"],
    )


def write(folder: Path, model: nn.Module, scale: float, **facts: object) -> dict:
    """Put a VAE into ``folder``, weights and all that :func:`load` needs; returns its record.

    Raises :class:`UserError` for a scale that is none: latents of unknown size train nothing.
    """
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise UserError(f"the scale of the VAE is {scale}; give it the one it was published with, a positive number")
    shape = _shape(model)
    weights = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    path = folder / WEIGHTS
    with files.atomic(path) as temporary:
        temporary.write_bytes(save(weights))
        facts = {"scale": scale, "channels": shape["latent_channels"], "factor": factor_of(shape), **facts}
        return files.seal(path, written=temporary, shape=shape, **facts)


def read_facts(folder: Path) -> dict:
    """What a VAE is, without its weights: sha256, scale, channels and factor."""
    record = files.read_json(files.sidecar(folder / WEIGHTS), AGAIN)
    return {name: record[name] for name in ("sha256", "scale", "channels", "factor")}


def load(folder: Path) -> VAE:
    """The VAE in ``folder``, verified, on the CPU. Raises :class:`UserError` where it is missing or damaged."""
    record = files.verify(folder / WEIGHTS, AGAIN)
    model = build(record["shape"])
    model.load_state_dict(load_file(folder / WEIGHTS))
    return VAE(model, read_facts(folder))


def fetch(source: str, revision: str | None, scale: float, folder: Path) -> dict:
    """Take over an AutoencoderKL as diffusers publishes it, from a local folder or from the hub at a revision.

    Raises :class:`UserError` that says what to put where when neither has it, or when it is built in another way.
    """
    from diffusers import AutoencoderKL

    try:
        model = AutoencoderKL.from_pretrained(source, revision=revision, low_cpu_mem_usage=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the VAE {source} could not be had ({reason}); put its config.json and weights into a folder on this "
            "machine and name it under path: in the VAE's config"
        ) from error
    twin = build(_shape(model))
    if (unlike := _differing(model, twin)) is not None:
        raise UserError(f"the VAE {source} is no plain AutoencoderKL ({unlike}); use one of stabilityai/sd-vae-ft-*")
    if scale != model.config.scaling_factor:
        raise UserError(
            f"the VAE {source} was published with the scale {model.config.scaling_factor}, and the config says "
            f"{scale}; correct scale: in the VAE's config"
        )
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if getattr(model.config, key, None) is not None:
            raise UserError(f"the VAE {source} has a {key}, which nothing here applies; use one without")
    return write(folder, model, scale, source=source, revision=revision)


def _differing(model: nn.Module, twin: nn.Module) -> str | None:
    """The first parameter that one of two networks lacks or has in another shape."""
    one, other = ({name: tuple(value.shape) for name, value in net.state_dict().items()} for net in (model, twin))
    return next((name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)), None)


def _shape(model: nn.Module) -> dict:
    c = model.config
    return {
        "latent_channels": c.latent_channels,
        "channels": list(c.block_out_channels),
        "layers": c.layers_per_block,
        "groups": c.norm_num_groups,
    }


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="the published VAE's description as a JSON object")
    parser.add_argument("out", type=Path, help="the VAE's folder, results/vaes/{vae}")
    arguments = parser.parse_args()
    spec = arguments.spec
    source = (str(Path(spec["path"]).expanduser()), None) if spec["path"] else (spec["repository"], spec["revision"])
    fetch(*source, spec["scale"], arguments.out)


if __name__ == "__main__":
    run_command(main)
