"""Training images: decoded once into a memory-mapped array and read in a global shuffle, with all random numbers that
the process needs for them.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffit.cli import progress
from diffit.numerics import rng
from diffit.store import files
from diffit.store.manifest import read_images, read_manifest
from diffit.training.ranks import STOP_SIGNALS

Draw = Callable[[np.random.Generator, tuple[int, ...]], dict[str, np.ndarray]]

DECODED = "decoded.safetensors"  # in the folder of a data set


def decoded(folder: Path) -> tuple[Tensor, Tensor]:
    """Map all images of a data set into memory: uint8 [N, 3, H, W], and their labels: int64 [N].

    The first call verifies the tars and decodes them into ``folder/decoded.safetensors``. Later calls check the hash of
    that file and map it, so all ranks of a node share one copy in the page cache.
    """
    manifest = read_manifest(folder)
    path = folder / DECODED
    if not _is_current(path, manifest["content_sha256"]):
        _decode(folder, manifest, path)
    with safe_open(path, "pt") as file:
        return file.get_tensor("images"), file.get_tensor("labels")


def _is_current(path: Path, content_sha256: str) -> bool:
    try:
        return files.verify(path)["content_sha256"] == content_sha256
    except files.UserError:
        return False  # missing, stale or damaged: decode again


def _decode(folder: Path, manifest: dict, path: Path) -> None:
    count, size = manifest["count"], manifest["resolution"]
    images = np.empty((count, 3, size, size), np.uint8)
    labels = np.zeros(count, np.int64)
    samples = progress(read_images(folder), total=count, desc=f"decode {folder.name}", unit="img")
    for index, (_key, image, label) in enumerate(samples):
        images[index], labels[index] = image.transpose(2, 0, 1), label
    with files.atomic(path) as temporary:
        temporary.write_bytes(save({"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}))
    files.seal(path, content_sha256=manifest["content_sha256"])


class Shuffle:
    """Maps the number of an image in a run, counted over all epochs, to its index in the data set.

    Each epoch is a permutation that depends on the seed and the epoch.
    """

    def __init__(self, seed: int, count: int):
        self.seed, self.count = seed, count
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, number: int) -> int:
        epoch, position = divmod(number, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, rng.epoch_order(self.seed, epoch, self.count)
        return int(self._order[position])


class TrainingImages(Dataset):
    """The training images of a run by number, counted over all epochs. Number ``i`` and all its random numbers depend
    only on ``(seed, i)``.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        draw: draws the random numbers of one image, given its generator and its shape.
        seed: the run's seed.
        xflip: whether to mirror an image with probability 1/2.
    """

    def __init__(self, images: Tensor, labels: Tensor, draw: Draw, seed: int, xflip: bool = False):
        self.images, self.labels, self.draw, self.seed, self.xflip = images, labels, draw, seed, xflip
        self.shape = tuple(images.shape[1:])
        self._order = Shuffle(seed, len(images))

    def __getitems__(self, numbers: list[int]) -> dict[str, Tensor]:
        """Return a batch: ``images`` uint8 [B, C, H, W], ``labels`` int64 [B], and each drawn array as [B, …]."""
        indices = torch.from_numpy(np.array([self._order[number] for number in numbers]))
        generators = [rng.training(self.seed, number) for number in numbers]
        images = self.images.index_select(0, indices)
        if self.xflip:  # drawn before the random numbers of the process, which therefore differ from those without it
            mirrored = torch.tensor([generator.random() < 0.5 for generator in generators])
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        drawn = [self.draw(generator, self.shape) for generator in generators]
        batch = {name: torch.from_numpy(np.stack([draw[name] for draw in drawn])) for name in drawn[0]}
        return {"images": images, "labels": self.labels.index_select(0, indices), **batch}


def microbatches(start: int, stop: int, batch: int, microbatch: int, rank: int, world: int) -> Iterator[list[int]]:
    """Yield the image numbers of each pass of one rank, from step ``start`` to step ``stop`` (excluded).

    Step s covers the images s·batch … (s+1)·batch - 1 for any number of ranks. ``batch`` must be a multiple of
    world·microbatch.
    """
    for step in range(start, stop):
        for first in range(step * batch + rank * microbatch, (step + 1) * batch, world * microbatch):
            yield list(range(first, first + microbatch))


def load(dataset: Dataset, batches: Iterator[list[int]], workers: int, pin: bool) -> Iterator[dict[str, Tensor]]:
    """Yield the batches in order, prepared by ``workers`` processes; 0 for this process."""
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin,
        worker_init_fn=_ignore_stop_signals,
    )
    return iter(loader)


def _unchanged(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


def _ignore_stop_signals(_worker: int) -> None:
    # A signal to the process group must not kill the workers: the trainer needs their batch to finish its step.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
