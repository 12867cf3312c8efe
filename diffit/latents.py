"""Latents to train on: their tars mapped into memory, visited in a global shuffle, drawn anew from their posteriors."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffit import draws, files, tars
from diffit.cli import UserError, progress
from diffit.loader import Draw, Shuffle

_MAGIC = slice(257, 262)  # where each header block of a tar says "ustar"


class LatentTars:
    """The posterior moments and labels of a folder of latents, by image number, without a copy in memory.

    Args:
        folder: latents as ``diffit.encode`` writes them, with their manifest.
        verify: whether to hash the pieces first; one rank of a training is enough.

    Raises :class:`UserError` for a piece that is missing, damaged, compressed or holds anything but latents.
    """

    def __init__(self, folder: Path, verify: bool = True):
        manifest = tars.read_manifest(folder)
        if "vae" not in manifest:
            raise UserError(f"{folder} holds no latents; encode its images first")
        side = manifest["resolution"] // manifest["vae"]["factor"]
        self.shape = (manifest["vae"]["channels"], side, side)
        self.scale = manifest["vae"]["scale"]
        self._bytes = 2 * 2 * 2 * int(np.prod(self.shape))  # mirrored or not, mean and std, two bytes each
        pieces = [self._map(folder, piece, verify) for piece in manifest["pieces"]]
        self._maps = [content for content, _latents, _labels in pieces]
        self._piece = np.repeat(np.arange(len(pieces)), [len(latents) for _content, latents, _labels in pieces])
        self._latents = np.concatenate([latents for _content, latents, _labels in pieces])  # [N, 2]: offset, size
        self._labels = np.concatenate([labels for _content, _latents, labels in pieces])  # [N, 2]

    def __len__(self) -> int:
        return len(self._piece)

    def moments(self, index: int, mirrored: bool) -> np.ndarray:
        """Mean and standard deviation of an image's posterior, unscaled: float16 [2, C, h, w], a view of the file."""
        offset, size = self._latents[index]
        start = offset + size - self._bytes  # behind the array's header
        array = self._maps[self._piece[index]][start : start + self._bytes].view(np.float16)
        return array.reshape(2, 2, *self.shape)[int(mirrored)]

    def label(self, index: int) -> int:
        """The class of an image; 0 where there are none."""
        offset, size = self._labels[index]
        return int(bytes(self._maps[self._piece[index]][offset : offset + size]))

    def _map(self, folder: Path, piece: dict, verify: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = folder / piece["file"]
        if verify:
            tars.verify_piece(path, piece)
        content = np.memmap(path, np.uint8, "r")
        if bytes(content[_MAGIC]) != b"ustar":
            raise UserError(f"{path} is compressed or no tar, so nothing in it can be mapped; {tars.ANEW}")
        index = tars.read_index(path)
        places = np.stack([index.offsets, index.sizes], axis=1)  # [members, 2]
        latents, labels = (places[index.extensions == extension] for extension in ("npy", "cls"))
        if not len(latents) == len(labels) == piece["count"] or (latents[:, 1] < self._bytes).any():
            raise UserError(f"{path} does not hold the latents that its manifest describes; {tars.ANEW}")
        self._check_header(path, bytes(content[latents[0, 0] : latents[0].sum() - self._bytes]))
        return content, latents, labels

    def _check_header(self, path: Path, header: bytes) -> None:
        described = f"'descr': '<f2', 'fortran_order': False, 'shape': {(2, 2, *self.shape)}"
        if described.encode() not in header:
            raise UserError(f"{path} holds no float16 arrays {[2, 2, *self.shape]}; {tars.ANEW}")


def stage(source: Path, target: Path) -> None:
    """Copy the latents in ``source`` to a folder on a disk of this node, verified; what is there already stays.

    On a shared file system, reading in a global shuffle is bound by seeks. Raises :class:`UserError` where the disk
    is too small, before anything is copied.
    """
    pieces = [source / piece["file"] for piece in tars.read_manifest(source)["pieces"]]
    due = [path for path in pieces if not _is_staged(path, target)]
    needed = sum(path.stat().st_size for path in due)
    target.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(target).free):
        raise UserError(
            f"staging needs {needed / 1e9:.3g} GB in {target}, where {free / 1e9:.3g} GB are free; "
            "name a larger disk with --stage-to, or leave it out to read the latents where they are"
        )
    for path in progress(due, desc=f"stage to {target}", unit="piece"):
        for file in (files.sidecar(path), path):  # a tar that is there has its sidecar
            with files.atomic(target / file.name) as temporary:
                shutil.copyfile(file, temporary)
        tars.verify_piece(target / path.name)
        tars.read_index(target / path.name)
    with files.atomic(target / "manifest.json") as temporary:
        shutil.copyfile(source / "manifest.json", temporary)


def _is_staged(path: Path, target: Path) -> bool:
    try:
        return files.verify(target / path.name)["sha256"] == files.read_json(files.sidecar(path), tars.ANEW)["sha256"]
    except UserError:
        return False


class TrainingLatents(Dataset):
    """Latent number ``i`` of a run, counted over all epochs: which one it is, a fresh draw from its posterior and all
    else that is drawn for it depend on ``(seed, i)`` alone.

    Args:
        tars: where the moments lie.
        draw: what the process draws for one latent, given its generator and its shape.
        seed: the run's seed.
        xflip: whether to take the mirror image's latent half of the time.
    """

    def __init__(self, tars: LatentTars, draw: Draw, seed: int, xflip: bool):
        self.tars, self.draw, self.seed, self.xflip = tars, draw, seed, xflip
        self.shape = tars.shape
        self._order = Shuffle(seed, len(tars))

    def __getitems__(self, numbers: list[int]) -> dict[str, Tensor]:
        """A batch: ``images``, the scaled latents, float32 [B, C, h, w], ``labels`` int64 [B], and each draw [B, …]."""
        samples = [self._sample(number) for number in numbers]
        return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}

    def _sample(self, number: int) -> dict[str, np.ndarray]:
        index, generator = self._order[number], draws.training(self.seed, number)
        mirrored = self.xflip and generator.random() < 0.5
        mean, std = self.tars.moments(index, mirrored).astype(np.float32)  # each [C, h, w]
        latent = (mean + std * generator.standard_normal(mean.shape, dtype=np.float32)) * np.float32(self.tars.scale)
        label = np.array(self.tars.label(index), np.int64)
        return {"images": latent, "labels": label, **self.draw(generator, mean.shape)}
