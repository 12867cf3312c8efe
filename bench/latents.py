"""The latent reader against webdataset's pipeline over the same tars and against one .npy file an image.

    python -m bench.latents

All work in one process and one thread and deliver whole shuffled epochs of posterior moments, float16
[64, 2, 4, 32, 32] in memory of their own, and labels: for each record the bytes of the image or of its mirror image. No
way draws from the posteriors, which costs all the same. Ours visits all records in one global shuffle; webdataset
shuffles the tars and a buffer.

The cold rows read after the page cache has let go of the files (posix_fadvise, DONTNEED): they measure the disk.
"""

import io
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset

from bench.timing import compare
from diffit import latents, loader, tars

COUNT, BATCH, PIECES, CLASSES, REPEAT = 4096, 64, 4, 1000, 7
SHAPE = (2, 2, 4, 32, 32)  # of a record: of the image and of its mirror image, mean and standard deviation
SHUFFLE_BUFFER = 1000  # as in webdataset's own examples
VAE = {"sha256": "", "scale": 0.18215, "channels": 4, "factor": 8}

Batch = tuple[np.ndarray, np.ndarray]


def is_mirrored(label: int) -> bool:
    """Which half of a record is delivered: a rule rather than a draw, so that all ways deliver the same."""
    return label % 2 == 1


def write_tars(folder: Path, moments: np.ndarray, labels: list[int]) -> list[Path]:
    """The records as encode writes them."""
    paths = [folder / f"{k}-of-{PIECES}.tar" for k in range(PIECES)]
    for k, path in enumerate(paths):
        numbers = range(k * COUNT // PIECES, (k + 1) * COUNT // PIECES)
        samples = ((f"{i:08d}", {"npy": npy(moments[i]), "cls": str(labels[i]).encode()}) for i in numbers)
        tars.write_tar(path, samples, resolution=8 * SHAPE[-1], classes=CLASSES, vae=VAE)
    tars.gather(folder, PIECES)
    return paths


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_files(folder: Path, moments: np.ndarray) -> list[Path]:
    """One .npy an image, as DiT's fast variants cache their latents."""
    folder.mkdir()
    paths = [folder / f"{i:08d}.npy" for i in range(COUNT)]
    for path, record in zip(paths, moments, strict=True):
        np.save(path, record)
    return paths


def ours(folder: Path) -> Callable[[], Iterator[Batch]]:
    """The reader, in the order in which training visits it; each call goes through the next epoch."""
    mapped, epochs = latents.LatentTars(folder, verify=False), itertools.count()
    order = loader.Shuffle(0, COUNT)

    def epoch() -> Iterator[Batch]:
        first = next(epochs) * COUNT
        for start in range(first, first + COUNT, BATCH):
            indices = np.array([order[number] for number in range(start, start + BATCH)])
            labels = mapped.label(indices)
            yield mapped.moments(indices, is_mirrored(labels)), labels

    return epoch


def streamed(paths: list[Path]) -> Callable[[], Iterator[Batch]]:
    """Webdataset's pipeline: shuffled pieces, shuffle buffer, decoding, batches."""
    pipeline = (
        webdataset.WebDataset([str(path) for path in paths], shardshuffle=PIECES)
        .shuffle(SHUFFLE_BUFFER)
        .decode()
        .to_tuple("npy", "cls")
        .map(lambda record: (record[0][int(is_mirrored(record[1]))], record[1]))
        .batched(BATCH)
    )
    return lambda: iter(pipeline)


def loose(paths: list[Path], labels: list[int]) -> Callable[[], Iterator[Batch]]:
    """One file a record, in random order; the labels are in memory."""
    rng = np.random.default_rng(0)

    def epoch() -> Iterator[Batch]:
        for indices in rng.permutation(COUNT).reshape(-1, BATCH):
            chosen = [labels[i] for i in indices]
            records = [np.load(paths[i])[int(is_mirrored(c))] for i, c in zip(indices, chosen, strict=True)]
            yield np.stack(records), np.array(chosen)

    return epoch


def multiset(epoch: Iterator[Batch]) -> Counter:
    """How often an epoch delivers each labeled array."""
    return Counter(
        (array.tobytes(), int(label))
        for moments, labels in epoch
        for array, label in zip(moments, labels, strict=True)
    )


def run(epoch: Callable[[], Iterator[Batch]]) -> None:
    """Go through one epoch."""
    assert sum(len(moments) for moments, _labels in epoch()) == COUNT
