"""Latents to train on: their tars mapped into memory, visited in a global shuffle, drawn anew from their posteriors."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffit.cli import UserError, progress
from diffit.numerics import rng
from diffit.store import files, tars
from diffit.training.image_loader import Draw, Shuffle

_MAGIC = slice(257, 262)  # where each header block of a tar says "ustar"


class LatentTars:
    """The posterior moments and labels of a folder of latents, by image number, mapped into memory.

    Args:
        folder: latents as ``diffit.encode`` writes them, with their manifest.
        verify: whether to hash the shards first; one rank of a training is enough.

    Raises :class:`UserError` for a shard that is missing, damaged, compressed or holds anything but latents.
    """

    def __init__(self, folder: Path, verify: bool = True):
        manifest = tars.read_manifest(folder)
        if "vae" not in manifest:
            raise UserError(f"{folder} holds no latents; encode its images first")
        side = manifest["resolution"] // manifest["vae"]["factor"]
        self.shape = (manifest["vae"]["channels"], side, side)
        self.scale = manifest["vae"]["scale"]
        self._bytes = 2 * 2 * 2 * int(np.prod(self.shape))  # mirrored or not, mean and std, two bytes each
        shards = [self._map(folder, shard, verify) for shard in manifest["shards"]]
        self._maps = [content for content, _latents, _labels in shards]
        self._shard = np.repeat(np.arange(len(shards)), [len(latents) for _content, latents, _labels in shards])
        latents = np.concatenate([latents for _content, latents, _labels in shards])  # [N, 2]: offset, size
        self._arrays = latents.sum(1) - self._bytes  # [N]: where the values begin, behind the array's header
        self._labels = np.concatenate([labels for _content, _latents, labels in shards])  # [N, 2]: offset, size

    def __len__(self) -> int:
        return len(self._shard)

    def moments(self, index: int | np.ndarray, mirrored: bool | np.ndarray) -> np.ndarray:
        """Mean and standard deviation of the posteriors of images, or of their mirror images, unscaled.

        For one image float16 [2, C, h, w], for images [B] and mirrored [B] float16 [B, 2, C, h, w]: copies, to be read.
        """
        half = self._bytes // 2
        offsets = self._arrays[index] + half * np.asarray(mirrored)
        # One join of many slices: several times as fast as an array for each image and a stack of them.
        values = b"".join(self._slices(index, offsets, np.broadcast_to(half, offsets.shape)))
        return np.frombuffer(values, np.float16).reshape(*offsets.shape, 2, *self.shape)

    def label(self, index: int | np.ndarray) -> np.ndarray:
        """The classes of images, int64 like ``index``; 0 where there are none."""
        places = self._labels[index]
        labels = [int(digits) for digits in self._slices(index, places[..., 0], places[..., 1])]
        return np.array(labels, np.int64).reshape(places.shape[:-1])

    def _slices(self, index: int | np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> list[memoryview]:
        """Bytes of the shards in which these images lie."""
        places = zip(*(np.ravel(value).tolist() for value in (self._shard[index], offsets, sizes)), strict=True)
        return [self._maps[shard][offset : offset + size] for shard, offset, size in places]

    def _map(self, folder: Path, shard: dict, verify: bool) -> tuple[memoryview, np.ndarray, np.ndarray]:
        path = folder / shard["file"]
        if verify:
            tars.verify_shard(path, shard)
        content = memoryview(np.memmap(path, np.uint8, "r"))
        if bytes(content[_MAGIC]) != b"ustar":
            raise UserError(f"{path} is compressed or no tar, so nothing in it can be mapped; {tars.ANEW}")
        index = tars.read_index(path)
        places = np.stack([index.offsets, index.sizes], axis=1)  # [members, 2]
        latents, labels = (places[index.extensions == extension] for extension in ("npy", "cls"))
        if not len(latents) == len(labels) == shard["count"] or (latents[:, 1] < self._bytes).any():
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
    shards = [source / shard["file"] for shard in tars.read_manifest(source)["shards"]]
    due = [path for path in shards if not _is_staged(path, target)]
    needed = sum(path.stat().st_size for path in due)
    target.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(target).free):
        raise UserError(
            f"staging needs {needed / 1e9:.3g} GB in {target}, where {free / 1e9:.3g} GB are free; "
            "name a larger disk with --stage-to, or leave it out to read the latents where they are"
        )
    for path in progress(due, desc=f"stage to {target}", unit="shard"):
        tars.read_index(path)  # makes it where it is missing
        for file in (files.sidecar(path), tars.index_path(path), path):  # a tar that is there has the others
            with files.atomic(target / file.name) as temporary:
                shutil.copyfile(file, temporary)
        tars.verify_shard(target / path.name)
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
        indices = np.array([self._order[number] for number in numbers])
        generators = [rng.training(self.seed, number) for number in numbers]
        # What is drawn for a latent, in this order: its side, its place in the posterior, and what the process draws.
        mirrored = np.array([self.xflip and generator.random() < 0.5 for generator in generators])
        noise = np.stack([generator.standard_normal(self.shape, dtype=np.float32) for generator in generators])
        drawn = [self.draw(generator, self.shape) for generator in generators]
        mean, std = np.moveaxis(self.tars.moments(indices, mirrored).astype(np.float32), -4, 0)  # each [B, C, h, w]
        latents = (mean + std * noise) * np.float32(self.tars.scale)
        batch = {"images": latents, "labels": self.tars.label(indices)}
        batch |= {name: np.stack([draw[name] for draw in drawn]) for name in drawn[0]}
        return {name: torch.from_numpy(value) for name, value in batch.items()}
