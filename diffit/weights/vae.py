"""The autoencoder between images and latents. The only module that imports diffusers.

    python -m diffit.weights.vae SPEC_JSON OUT_FOLDER      imports a published VAE from a local folder or the hub

results/vaes/{vae}/vae.safetensors   weights of an AutoencoderKL, float32
results/vaes/{vae}/vae.json          their sha256, the shape of the network, and the scale of its latents

Latents are multiplied by the scale before they are diffused. The scale is stored only in ``vae.json``.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from diffit.cli import Parser, UserError, run_command
from diffit.fetch import hub
from diffit.registry.arguments import described
from diffit.store import files
from diffit.weights.settings import one_kind
from diffit.weights.vae_shape import factor_of

REMEDY = "delete its folder and run the same command again"
WEIGHTS = "vae.safetensors"
INSTEAD = "put its config.json and weights into a folder on this machine and set path: in the VAE's config to it"


class VAE:
    """A frozen AutoencoderKL in float32, with its scale.

    Args:
        model: an AutoencoderKL of diffusers.
        facts: ``sha256`` of the weights, ``scale``, ``channels`` of latents, and ``factor``, by which the sides of
            latents are shorter than those of images. They identify the VAE in latents, runs and samples.
    """

    def __init__(self, model: nn.Module, facts: Mapping):
        self.model, self.facts = model.eval().requires_grad_(False), dict(facts)

    def to(self, device: torch.device) -> "VAE":
        """Move the VAE to a device."""
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """Map images in [−1, 1], [B, 3, H, W], to mean and standard deviation of the posterior, unscaled.

        Returns [B, 2, C, h, w].
        """
        posterior = self.model.encode(images).latent_dist
        return torch.stack([posterior.mean, posterior.std], dim=1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Map scaled latents [B, C, h, w] to images, float32 [B, 3, H, W], in [−1, 1] except for overshoots."""
        return self.model.decode((latents / self.facts["scale"]).float()).sample


def latent_size(resolution: int, factor: int) -> int:
    """Side of the latents: ``resolution`` / ``factor``. Raises :class:`UserError` if it is not an integer."""
    if resolution % factor:
        raise UserError(
            f"the VAE shortens sides by {factor}, which does not divide the resolution {resolution}; "
            "choose another resolution or another VAE"
        )
    return resolution // factor


def build(shape: dict) -> nn.Module:
    """An untrained AutoencoderKL from ``latent_channels``, ``channels`` per level, ``layers`` and ``groups``."""
    from diffusers import AutoencoderKL  # here, because diffusers takes seconds to import

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
    """Write a VAE to ``folder``: its weights, and the record with shape, scale and ``facts``. Returns the record.

    Raises :class:`UserError` for a scale that is not a positive finite number.
    """
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise UserError(
            f"the scale of the VAE is {scale}, which is not a positive number; use the scale it was published with"
        )
    shape = _shape(model)
    weights = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    path = folder / WEIGHTS
    with files.atomic(path) as temporary:
        temporary.write_bytes(save(weights))
        facts = {"scale": scale, "channels": shape["latent_channels"], "factor": factor_of(shape), **facts}
        return files.seal(path, written=temporary, shape=shape, **facts)


def read_facts(folder: Path) -> dict:
    """The facts that identify a VAE: sha256, scale, channels and factor."""
    record = files.read_json(files.sidecar(folder / WEIGHTS), REMEDY)
    return {name: record[name] for name in ("sha256", "scale", "channels", "factor")}


def load(folder: Path) -> VAE:
    """Verify and load the VAE in ``folder``, on the CPU. Raises :class:`UserError` if it is missing or damaged."""
    record = files.verify(folder / WEIGHTS, REMEDY)
    model = build(record["shape"])
    model.load_state_dict(load_file(folder / WEIGHTS))
    return VAE(model, read_facts(folder))


def fetch(source: str, revision: str | None, scale: float, folder: Path) -> dict:
    """Import an AutoencoderKL in the format of diffusers into ``folder``; return its record.

    Args:
        source: a repository of the Hugging Face hub, or a local folder.
        revision: revision of the repository, None for a local folder.
        scale: the scale that the config gives; it must be the published one.
        folder: the VAE's folder, results/vaes/{vae}. Downloads stay in results/vaes/.downloads.

    Raises :class:`UserError` if it cannot be loaded, has another architecture or scale, or shifts its latents.
    """
    from diffusers import AutoencoderKL

    local = Path(source) if revision is None else _downloaded(source, revision, folder.parent / hub.FOLDER)
    try:
        model = AutoencoderKL.from_pretrained(local, local_files_only=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the VAE {source} could not be loaded ({reason}); {INSTEAD}") from error
    twin = build(_shape(model))
    if (different := _first_difference(model, twin)) is not None:
        raise UserError(
            f"the VAE {source} is not a plain AutoencoderKL ({different} differs); use one of stabilityai/sd-vae-ft-*"
        )
    if scale != model.config.scaling_factor:
        raise UserError(
            f"the VAE {source} was published with the scale {model.config.scaling_factor}, but the config says "
            f"{scale}; correct scale: in the VAE's config"
        )
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if getattr(model.config, key, None) is not None:
            raise UserError(f"the VAE {source} has a {key}, which is not supported; use a VAE without it")
    return write(folder, model, scale, source=source, revision=revision)


def _downloaded(repository: str, revision: str, downloads: Path) -> Path:
    """The folder with the VAE's files, downloaded where they are not there yet."""
    source = hub.Repository(repository, revision, INSTEAD)
    _, paths = hub.files(source, ["config.json", "diffusion_pytorch_model.safetensors"], downloads)
    return paths[0].parent


def _first_difference(model: nn.Module, twin: nn.Module) -> str | None:
    """Name of the first parameter that only one network has or whose shapes differ, None if there is none."""
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
    parser.add_argument(
        "spec",
        type=described("the VAE", lambda: one_kind("published")),
        help="the published VAE as a JSON object: repository and revision, or path; scale",
    )
    parser.add_argument("out", type=Path, help="the VAE's folder, results/vaes/{vae}")
    arguments = parser.parse_args()
    spec = arguments.spec
    source = (str(Path(spec["path"]).expanduser()), None) if spec["path"] else (spec["repository"], spec["revision"])
    fetch(*source, spec["scale"], arguments.out)


if __name__ == "__main__":
    run_command(main)
