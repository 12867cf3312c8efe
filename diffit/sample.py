"""Generate one piece of a set of images from a milestone of a run.

Image i is settled by its seed: the noise comes from the seed's own generator, and the network sees images in fixed
blocks of consecutive seeds, the same whatever the number of pieces. So pieces can be cut and distributed in any way
without changing a bit on one device.
"""

import io
import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffit import draws, milestone, process, tars
from diffit.cli import Parser, UserError, json_argument, progress, run
from diffit.fingerprint import commit

log = logging.getLogger("diffit")


def piece_of_blocks(first_seed: int, images: int, block: int, piece: int, pieces: int) -> range:
    """The blocks (numbers of ``block`` consecutive seeds, counted from seed 0) that make up one piece."""
    first, stop = first_seed // block, -(-(first_seed + images) // block)
    count = stop - first
    return range(first + count * piece // pieces, first + count * (piece + 1) // pieces)


def generate(
    net: nn.Module, record: dict, sampler: dict, blocks: range, device: torch.device
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield ``(seed, uint8 [H, W, 3])`` for the seeds of ``sampler`` within ``blocks``, in order.

    A block at the rim is generated whole and cut, so that its kernels see the same shapes as everywhere.
    """
    task = process.build(record["process"])
    denoiser = task.denoiser(net.to(device))
    try:
        solve = task.sampler(sampler)
    except ValueError as error:
        raise UserError(f"sampler: {error}") from None
    shape = (record["net"]["channels"], record["net"]["resolution"], record["net"]["resolution"])
    wanted = range(sampler["first_seed"], sampler["first_seed"] + sampler["images"])
    for number in progress(blocks, desc="sample", unit="block"):
        seeds = range(number * sampler["block"], (number + 1) * sampler["block"])
        generators = [draws.sampling(seed) for seed in seeds]

        def noise(generators=generators) -> Tensor:
            return torch.from_numpy(np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators])).to(
                device
            )

        pixels = to_uint8(solve(denoiser, noise(), noise))
        yield from ((seed, pixels[i]) for i, seed in enumerate(seeds) if seed in wanted)


def to_uint8(images: Tensor) -> np.ndarray:
    """Images in [−1, 1], [B, C, H, W] → uint8 [B, H, W, C]: truncate(127.5·x + 128), as EDM writes them."""
    return (images * 127.5 + 128).clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def sample(sampler: dict, folder: Path, out: Path) -> None:
    """Write the piece ``out``, ``{k}-of-{n}.tar``, of the images that ``sampler`` makes from a milestone's folder."""
    net, record = milestone.load(folder)
    piece, pieces = tars.piece_number(out)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    blocks = piece_of_blocks(sampler["first_seed"], sampler["images"], sampler["block"], piece, pieces)
    samples = (
        (f"{seed:08d}", {"npy": _npy(pixels), "cls": b"0"})
        for seed, pixels in generate(net, record, sampler, blocks, device)
    )
    tars.write_tar(
        out,
        samples,
        run=folder.parent.name,
        kimg=record["kimg"],
        images_trained=record["images_trained"],
        dataset=record["dataset"],
        data_sha256=record["data_sha256"],
        weights_sha256=record["sha256"],
        trained_commit=record["commit"],
        resolution=record["net"]["resolution"],
        sampler=sampler,
        made_by={"commit": commit(), "device": str(device)},
    )


def _npy(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("sampler", type=json_argument, help="the sampler's description as a JSON object")
    parser.add_argument("milestone", type=Path, help="a milestone's folder, results/runs/{run}/{kimg}")
    parser.add_argument("out", type=Path, help="the piece to write, {k}-of-{n}.tar")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    sample(arguments.sampler, arguments.milestone, arguments.out)


if __name__ == "__main__":
    run(main)
