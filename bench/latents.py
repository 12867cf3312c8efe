"""The latent reader against webdataset's pipeline on the same tars and against one .npy file per image.

    python -m bench.latents

Two rows compare with files: fast-DiT's data set (one .npy for the moments and one for the label of each image) in
torch's DataLoader, and a plain loop over the moments' files, in which both readers know the labels.

All readers use one process and one thread. They deliver complete shuffled epochs of posterior moments, float16
[64, 2, 4, 32, 32] in newly allocated memory, and labels; each record is the image or its mirror image. None samples the
posteriors, which would cost the same for all. Ours shuffles globally; webdataset shuffles the tars and a buffer.

The cold rows drop the files from the page cache before each epoch (posix_fadvise, DONTNEED), so they measure the disk.
"""

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.timing import compare
from diffit.store import tars
from diffit.store.manifest import gather
from diffit.store.members import encode_npy
from diffit.training import image_loader, latent_loader

COUNT, BATCH, SHARDS, CLASSES, REPEAT = 4096, 64, 4, 1000, 7
TARGET = 20
SHAPE = (2, 2, 4, 32, 32)  # of a record: (image, mirror image), (mean, standard deviation), C, h, w
SHUFFLE_BUFFER = 1000  # as in webdataset's examples
VAE = {"sha256": "", "scale": 0.18215, "channels": 4, "factor": 8}

Batch = tuple[np.ndarray, np.ndarray]


def is_mirrored(label: int) -> bool:
    """Whether the mirrored half of a record is delivered; not random, so that all readers deliver the same."""
    return label % 2 == 1


def write_tars(folder: Path, moments: np.ndarray, labels: list[int]) -> list[Path]:
    """Write the records as :mod:`diffit.encode` does."""
    paths = [folder / f"{k}-of-{SHARDS}.tar" for k in range(SHARDS)]
    for k, path in enumerate(paths):
        numbers = range(k * COUNT // SHARDS, (k + 1) * COUNT // SHARDS)
        samples = ((f"{i:08d}", {"npy": encode_npy(moments[i]), "cls": str(labels[i]).encode()}) for i in numbers)
        tars.write_tar(path, samples, resolution=8 * SHAPE[-1], classes=CLASSES, vae=VAE)
    gather(folder, SHARDS)
    return paths


def write_files(folder: Path, moments: np.ndarray, labels: list[int]) -> tuple[list[Path], list[Path]]:
    """Write moments and label of each image as two .npy files, as fast-DiT does."""
    places = [[folder / kind / f"{i}.npy" for i in range(COUNT)] for kind in ("features", "labels")]
    for paths, values in zip(places, (moments, np.array(labels)), strict=True):
        paths[0].parent.mkdir(parents=True)
        for path, value in zip(paths, values, strict=True):
            np.save(path, value)
    return places[0], places[1]


def ours(folder: Path, known: list[int] | None = None) -> Callable[[], Iterator[Batch]]:
    """Our reader in training's order; each call of the result reads the next epoch.

    It reads the labels from the tars, unless they are given as ``known``, as in the plain loop.
    """
    mapped, epochs = latent_loader.LatentTars(folder, verify=False), itertools.count()
    given = None if known is None else np.array(known)
    order = image_loader.Shuffle(0, COUNT)

    def epoch() -> Iterator[Batch]:
        first = next(epochs) * COUNT
        for start in range(first, first + COUNT, BATCH):
            indices = np.array([order[number] for number in range(start, start + BATCH)])
            labels = mapped.label(indices) if given is None else given[indices]
            yield mapped.moments(indices, is_mirrored(labels)), labels

    return epoch


def streamed(paths: list[Path]) -> Callable[[], Iterator[Batch]]:
    """webdataset's pipeline: shuffled shards, shuffle buffer, decoding, batches."""
    pipeline = (
        webdataset.WebDataset([str(path) for path in paths], shardshuffle=SHARDS)
        .shuffle(SHUFFLE_BUFFER)
        .decode()
        .to_tuple("npy", "cls")
        .map(lambda record: (record[0][int(is_mirrored(record[1]))], record[1]))
        .batched(BATCH)
    )
    return lambda: iter(pipeline)


class LooseArrays(Dataset):
    """fast-DiT's data set: two small files per image."""

    def __init__(self, features: list[Path], labels: list[Path]):
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        label = np.load(self.labels[number])
        return torch.from_numpy(np.load(self.features[number])[int(is_mirrored(label))]), torch.from_numpy(label)


def loose(features: list[Path], labels: list[Path]) -> Callable[[], Iterator[Batch]]:
    """One file per image and one per label in random order in torch's DataLoader."""
    loading = DataLoader(LooseArrays(features, labels), BATCH, shuffle=True)
    return lambda: ((moments.numpy(), classes.numpy()) for moments, classes in loading)


def plain_loop(features: list[Path], labels: list[int]) -> Callable[[], Iterator[Batch]]:
    """The minimum cost of one file per image: a loop with known labels."""
    rng = np.random.default_rng(0)

    def epoch() -> Iterator[Batch]:
        for numbers in rng.permutation(COUNT).reshape(-1, BATCH):
            chosen = [labels[i] for i in numbers]
            records = [np.load(features[i])[int(is_mirrored(c))] for i, c in zip(numbers, chosen, strict=True)]
            yield np.stack(records), np.array(chosen)

    return epoch


def multiset(epoch: Iterator[Batch]) -> Counter:
    """The number of times that an epoch delivers each labeled array."""
    return Counter(
        (array.tobytes(), int(label)) for moments, labels in epoch for array, label in zip(moments, labels, strict=True)
    )


def run(epoch: Callable[[], Iterator[Batch]]) -> None:
    """Read one epoch."""
    assert sum(len(moments) for moments, _labels in epoch()) == COUNT


def drop_from_page_cache(folder: Path) -> None:
    """Drop all files below ``folder`` from the page cache; mapped or unsynchronized files would stay."""
    for path in folder.rglob("*.*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    moments = rng.standard_normal((COUNT, *SHAPE), dtype=np.float32).astype(np.float16)
    labels = rng.integers(CLASSES, size=COUNT).tolist()
    with tempfile.TemporaryDirectory(dir=".") as temporary:  # not in /tmp, which may be a RAM disk
        folder = Path(temporary)
        shards = write_tars(folder / "tars", moments, labels)
        features, classes = write_files(folder / "files", moments, labels)
        ways = {
            "webdataset": streamed(shards),
            "two .npy per image": loose(features, classes),
            "one .npy, plain loop": plain_loop(features, labels),
        }
        mapped, known = ours(folder / "tars"), ours(folder / "tars", labels)
        delivered = [multiset(way()) for way in (mapped, known, *ways.values())]
        assert all(content == delivered[0] for content in delivered), "the readers deliver different records"
        print(f"latents: {COUNT} records {[*SHAPE]}, batches of {BATCH}; all readers deliver the same bytes per epoch")
        for name, way in ways.items():
            row = f"latents, warm, against {name}"
            reader = known if name == "one .npy, plain loop" else mapped
            compare(row, lambda reader=reader: run(reader), lambda way=way: run(way), REPEAT, TARGET, COUNT)
        mapped = known = reader = None  # mapped files stay in the page cache, so each cold call opens a new reader
        for name, way in ways.items():
            row = f"latents, cold, against {name}"
            cold = {"images": COUNT, "prepare": lambda: drop_from_page_cache(folder)}
            compare(row, lambda: run(ours(folder / "tars")), lambda way=way: run(way), 3, **cold)


if __name__ == "__main__":
    main()
