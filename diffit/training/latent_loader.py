"""Training latents: tars mapped into memory, read in a global shuffle, sampled from their posterior each time."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffit.cli import UserError, progress
from diffit.numerics import rng
from diffit.store import files, tar_index, tars
from diffit.store.manifest import read_manifest
from diffit.training.image_loader import Draw, Shuffle

_MAGIC = slice(257, 262)  # bytes of a tar header that hold "ustar"


class LatentTars:
    """The posterior moments and labels of a folder of latents, by image index, mapped into memory.

    Args:
        folder: latents as ``diffit.encode`` writes them, with their manifest.
        verify: whether to check the hashes of the shards first; one rank of a training is enough.

    Raises :class:`UserError` for a shard that is missing, damaged or compressed, or that does not hold latents.
    """

    def __init__(self, folder: Path, verify: bool = True):
        manifest = read_manifest(folder)
        if "vae" not in manifest:
            raise UserError(f"{folder} does not hold latents; encode its images first")
        side = manifest["resolution"] // manifest["vae"]["factor"]
        self.shape = (manifest["vae"]["channels"], side, side)
        self.scale = manifest["vae"]["scale"]
        self._bytes = 2 * 2 * 2 * int(np.prod(self.shape))  # plain and mirrored, mean and std, float16
        shards = [self._map(folder, shard, verify) for shard in manifest["shards"]]
        self._maps = [content for content, _latents, _labels in shards]
        self._shard = np.repeat(np.arange(len(shards)), [len(latents) for _content, latents, _labels in shards])
        latents = np.concatenate([latents for _content, latents, _labels in shards])  # [N, 2]: offset, size
        self._arrays = latents.sum(1) - self._bytes  # [N]: offset of the values, after the npy header
        self._labels = np.concatenate([labels for _content, _latents, labels in shards])  # [N, 2]: offset, size

    def __len__(self) -> int:
        return len(self._shard)

    def moments(self, index: int | np.ndarray, mirrored: bool | np.ndarray) -> np.ndarray:
        """Return mean and standard deviation of the posteriors of images, or of their mirror images, unscaled.

        Float16 [2, C, h, w] for one image; float16 [B, 2, C, h, w] for ``index`` [B] and ``mirrored`` [B]. The array is
        a read-only copy.
        """
        half = self._bytes // 2
        offsets = self._arrays[index] + half * np.asarray(mirrored)
        # Joining the slices is several times as fast as stacking one array per image.
        values = b"".join(self._slices(index, offsets, np.broadcast_to(half, offsets.shape)))
        return np.frombuffer(values, np.float16).reshape(*offsets.shape, 2, *self.shape)

    def label(self, index: int | np.ndarray) -> np.ndarray:
        """Return the classes of images as int64 of the shape of ``index``; 0 if the data have no classes."""
        members = self._labels[index]  # [..., 2]: offset, size
        labels = [int(digits) for digits in self._slices(index, members[..., 0], members[..., 1])]
        return np.array(labels, np.int64).reshape(members.shape[:-1])

    def _slices(self, index: int | np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> list[memoryview]:
        """Return a slice of the shard of each image."""
        slices = zip(*(np.ravel(value).tolist() for value in (self._shard[index], offsets, sizes)), strict=True)
        return [self._maps[shard][offset : offset + size] for shard, offset, size in slices]

    def _map(self, folder: Path, shard: dict, verify: bool) -> tuple[memoryview, np.ndarray, np.ndarray]:
        path = folder / shard["file"]
        if verify:
            tars.verify_tar(path, shard)
        content = memoryview(np.memmap(path, np.uint8, "r"))
        if bytes(content[_MAGIC]) != b"ustar":
            raise UserError(
                f"{path} is compressed or not a tar, so it cannot be mapped into memory; {files.REMAKE_SHARD}"
            )
        index = tar_index.read_index(path)
        members = np.stack([index.offsets, index.sizes], axis=1)  # [members, 2]
        latents, labels = (members[index.extensions == extension] for extension in ("npy", "cls"))
        if not len(latents) == len(labels) == shard["count"] or (latents[:, 1] < self._bytes).any():
            raise UserError(f"{path} does not hold the latents that its manifest describes; {files.REMAKE_SHARD}")
        self._check_header(path, bytes(content[latents[0, 0] : latents[0].sum() - self._bytes]))
        return content, latents, labels

    def _check_header(self, path: Path, header: bytes) -> None:
        described = f"'descr': '<f2', 'fortran_order': False, 'shape': {(2, 2, *self.shape)}"
        if described.encode() not in header:
            raise UserError(f"{path} does not hold float16 arrays {[2, 2, *self.shape]}; {files.REMAKE_SHARD}")


def stage(source: Path, target: Path) -> None:
    """Copy the latents in ``source`` to ``target``, a folder on a disk of this node, and verify the copies.

    Intact copies are kept. The reason to copy: on a shared file system, reads in a global shuffle are bound by seeks.
    Raises :class:`UserError` before anything is copied if the disk is too small.
    """
    shards = [source / shard["file"] for shard in read_manifest(source)["shards"]]
    due = [path for path in shards if not _is_staged(path, target)]
    needed = sum(path.stat().st_size for path in due)
    target.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(target).free):
        raise UserError(
            f"staging needs {needed / 1e9:.3g} GB in {target}, where {free / 1e9:.3g} GB are free; "
            "name a larger disk with --stage-to, or omit the option to read the latents where they are"
        )
    for path in progress(due, desc=f"stage to {target}", unit="shard"):
        tar_index.read_index(path)  # writes the index if it is missing
        for file in (files.sidecar(path), tar_index.index_path(path), path):  # the tar last, so its copy has the others
            with files.atomic(target / file.name) as temporary:
                shutil.copyfile(file, temporary)
        tars.verify_tar(target / path.name)
    with files.atomic(target / "manifest.json") as temporary:
        shutil.copyfile(source / "manifest.json", temporary)


def _is_staged(path: Path, target: Path) -> bool:
    try:
        return (
            files.verify(target / path.name)["sha256"]
            == files.read_json(files.sidecar(path), files.REMAKE_SHARD)["sha256"]
        )
    except UserError:
        return False


class TrainingLatents(Dataset):
    """The training latents of a run by number, counted over all epochs. Number ``i``, its sample of the posterior and
    all its random numbers depend only on ``(seed, i)``.

    Args:
        tars: the posterior moments.
        draw: draws the random numbers of one latent, given its generator and its shape.
        seed: the run's seed.
        xflip: whether to use the latent of the mirror image with probability 1/2.
    """

    def __init__(self, tars: LatentTars, draw: Draw, seed: int, xflip: bool):
        self.tars, self.draw, self.seed, self.xflip = tars, draw, seed, xflip
        self.shape = tars.shape
        self._order = Shuffle(seed, len(tars))

    def __getitems__(self, numbers: list[int]) -> dict[str, Tensor]:
        """Return a batch: ``images``, the scaled latents as float32 [B, C, h, w], ``labels`` int64 [B], and each drawn
        array as [B, …].
        """
        indices = np.array([self._order[number] for number in numbers])
        generators = [rng.training(self.seed, number) for number in numbers]
        # The order of random numbers for one latent: mirrored or not, posterior noise, those of the process.
        mirrored = np.array([self.xflip and generator.random() < 0.5 for generator in generators])
        noise = np.stack([generator.standard_normal(self.shape, dtype=np.float32) for generator in generators])
        drawn = [self.draw(generator, self.shape) for generator in generators]
        mean, std = np.moveaxis(self.tars.moments(indices, mirrored).astype(np.float32), -4, 0)  # each [B, C, h, w]
        latents = (mean + std * noise) * np.float32(self.tars.scale)
        batch = {"images": latents, "labels": self.tars.label(indices)}
        batch |= {name: np.stack([draw[name] for draw in drawn]) for name in drawn[0]}
        return {name: torch.from_numpy(value) for name, value in batch.items()}
