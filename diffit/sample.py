"""Generate one shard of a set of images from a milestone of a run.

Each image depends on its seed: the seed's generator draws the class and the noise. The network processes fixed blocks
of consecutive seeds, so on one device the images are bitwise independent of the number of shards. The job also decodes
the latents of a latent run.
"""

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from diffit import process
from diffit.cli import Parser, UserError, progress, run_command
from diffit.config.changes import difference
from diffit.config.schema import samples_schema
from diffit.data.shard_ranges import shard_of_blocks
from diffit.nets.layers import cached_position_bias
from diffit.numerics import arithmetic, rng
from diffit.numerics.pixels import to_uint8, truncated
from diffit.numerics.precision import PRECISIONS, warn_if_emulated
from diffit.process import samplers
from diffit.registry.arguments import described
from diffit.store import tars
from diffit.store.fingerprint import commit
from diffit.store.manifest import shard_number
from diffit.store.members import encode_npy
from diffit.weights import milestone, vae

if TYPE_CHECKING:
    from diffit.process.ddpm import DDPM
    from diffit.process.edm import EDM

log = logging.getLogger("diffit")

DECODED = 8  # images per pass of a VAE's decoder: at 512×512 each needs about a gigabyte


class Pixels:
    """Turns samples of an image-space run into uint8 images."""

    def __init__(self, record: dict):
        self.resolution = record["net"]["resolution"]
        self.shape, self.vae_sha256 = (record["net"]["channels"], self.resolution, self.resolution), None

    def __call__(self, images: Tensor) -> np.ndarray:
        """Images in [−1, 1], [B, C, H, W] → uint8 [B, H, W, C]."""
        return to_uint8(images)


class Latents:
    """Decodes samples of a latent run with the run's VAE, or with the ``decoder`` that the sampler names.

    Raises :class:`UserError` if the VAE is not the run's, or if the decoder is for other latents.
    """

    def __init__(self, record: dict, sampler: dict, folder: Path | None, device: torch.device):
        if folder is None:
            raise UserError(
                f"the run was trained on latents of {record['dataset']}; give the folder of their VAE with --vae"
            )
        decoder = vae.load(folder)
        same = ("scale", "channels", "factor") if sampler.get("decoder") else tuple(record["vae"])
        if changes := difference(*({name: facts[name] for name in same} for facts in (record["vae"], decoder.facts))):
            raise UserError(
                f"{folder} is not the VAE of the run ({'; '.join(changes)}); give the VAE that the run was trained with"
            )
        self.vae, self.resolution = decoder.to(device), record["resolution"]
        self.shape = (record["net"]["channels"], record["net"]["input_size"], record["net"]["input_size"])
        self.vae_sha256 = decoder.facts["sha256"]

    def __call__(self, latents: Tensor) -> np.ndarray:
        """Scaled latents [B, C, h, w] → uint8 [B, H, W, 3]: truncate(127.5·(x + 1)), as the released sampler does."""
        return np.concatenate([truncated((self.vae.decode(few) + 1) * 127.5) for few in latents.split(DECODED)])


def generate(
    net: nn.Module, record: dict, sampler: dict, blocks: range, canvas: Pixels | Latents, device: torch.device
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield ``(seed, label, uint8 [H, W, 3])`` for the seeds of ``sampler`` within ``blocks``, in order.

    The first and the last block are generated whole and then cut, so that all blocks have the same shape.
    """
    diffusion = process.build(record["process"])
    denoiser = diffusion.denoiser(net.to(device))
    classes = record["net"].get("num_classes", 0)
    _check_settings(diffusion, denoiser, sampler, classes)
    solve = samplers.build(diffusion, sampler)
    wanted = range(sampler["first_seed"], sampler["first_seed"] + sampler["images"])
    for number in progress(blocks, desc="sample", unit="block"):
        seeds = range(number * sampler["block"], (number + 1) * sampler["block"])
        generators = [rng.sampling(seed) for seed in seeds]
        labels = [_label(sampler, classes, seed, g) for seed, g in zip(seeds, generators, strict=True)]

        def noise(generators=generators) -> Tensor:
            fresh = np.stack([g.standard_normal(canvas.shape, dtype=np.float32) for g in generators])
            return torch.from_numpy(fresh).to(device)

        with arithmetic.autocast(sampler["precision"], device.type), cached_position_bias(net):
            predict = diffusion.guided(denoiser, torch.tensor(labels, device=device), sampler)
            generated = solve(predict, noise(), noise)
        pixels = canvas(generated)
        yield from ((seed, labels[i], pixels[i]) for i, seed in enumerate(seeds) if seed in wanted)


def _check_settings(diffusion: "EDM | DDPM", denoiser: Callable[..., Tensor], sampler: dict, classes: int) -> None:
    """Raise :class:`UserError` if settings, guidance or labels of the sampler are not valid for this network."""
    try:
        samplers.build(diffusion, sampler)
        diffusion.guided(denoiser, torch.zeros(0, dtype=torch.int64), sampler)  # wraps the denoiser, does not call it
    except ValueError as error:
        raise UserError(f"sampler: {error}") from None
    if isinstance(sampler.get("labels"), list) and max(sampler["labels"]) >= classes:
        raise UserError(f"sampler: labels has class {max(sampler['labels'])}, but the network has {classes} classes")


def _label(sampler: dict, classes: int, seed: int, generator: np.random.Generator) -> int:
    """Choose the class of an image: drawn uniformly, before the noise, or in turn from all or the listed classes."""
    if not classes:
        return 0
    if isinstance(sampler["labels"], list):
        return sampler["labels"][seed % len(sampler["labels"])]
    return seed % classes if sampler["labels"] == "balanced" else int(generator.integers(classes))


def sample(sampler: dict, folder: Path, out: Path, vae_folder: Path | None = None) -> None:
    """Write the shard ``out``, ``{k}-of-{n}.tar``, of the images that ``sampler`` generates.

    Args:
        sampler: description of the sampler.
        folder: folder of a milestone.
        out: the shard to write.
        vae_folder: folder of the VAE; required for a latent run.
    """
    net, record = milestone.load(folder)
    shard, shards = shard_number(out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    blocks = shard_of_blocks(sampler["first_seed"], sampler["images"], sampler["block"], shard, shards)
    warn_if_emulated(sampler["precision"], device.type)
    canvas = Latents(record, sampler, vae_folder, device) if "vae" in record else Pixels(record)
    samples = (
        (f"{seed:08d}", {"npy": encode_npy(pixels), "cls": str(label).encode()})
        for seed, label, pixels in generate(net, record, sampler, blocks, canvas, device)
    )
    # The released sampler uses TF32 on GPUs. Without TF32 in the sampler's precision, float32 is exact.
    with arithmetic.float32(tf32=PRECISIONS[sampler["precision"]].tf32):
        tars.write_tar(
            out,
            samples,
            run=folder.parent.name,
            kimg=record["kimg"],
            images_trained=record["images_trained"],
            dataset=record["dataset"],
            data_sha256=record.get("images_sha256", record["data_sha256"]),
            vae_sha256=canvas.vae_sha256,
            weights_sha256=record["sha256"],
            trained_commit=record["commit"],
            **{key: record[key] for key in ("skipped_steps",) if key in record},
            resolution=canvas.resolution,
            sampler=sampler,
            made_by={"commit": commit(), "device": str(device)},
        )


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "sampler",
        type=described("the sampler", samples_schema),
        help="the sampler as a JSON object: kind, steps, images, first_seed, …",
    )
    parser.add_argument("milestone", type=Path, help="folder of the milestone, results/runs/{run}/{kimg}")
    parser.add_argument("out", type=Path, help="shard to write, {k}-of-{n}.tar")
    parser.add_argument("--vae", type=Path, help="folder of the VAE, for a latent run")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    sample(arguments.sampler, arguments.milestone, arguments.out, arguments.vae)


if __name__ == "__main__":
    run_command(main)
