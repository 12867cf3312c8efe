"""Training's loader against EDM's data set (a zip of PNGs, decoded in every epoch) and webdataset's pipeline.

    python -m bench.loader

All loaders use one process and one thread, like one loader worker. They read the same images and deliver complete
shuffled epochs of uint8 [64, 3, 32, 32] and labels. The other two do not draw noise, because their users draw it on the
GPU. Ours is therefore timed twice: without and with all random values that EDM draws per image.
"""

import io
import itertools
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.timing import compare
from diffit import process
from diffit.data import images
from diffit.store import tars
from diffit.store.manifest import gather
from diffit.training import image_loader

COUNT, BATCH, SHARDS, REPEAT = 4096, 64, 4, 7
SHUFFLE_BUFFER = 1000  # as in webdataset's examples
SHARED = Path("../shared/data/cifar10_jpeg.zip")
AUGMENTED = {
    "kind": "edm",
    "sigma_data": 0.5,
    "p_mean": -1.2,
    "p_std": 1.2,
    "augment": {"probability": 0.12, "xflip": True},
}

Batch = tuple[Tensor, Tensor]


def pictures() -> tuple[str, list[Image.Image]]:
    """A description of the images and ``COUNT`` of them, RGB 32×32."""
    if SHARED.exists():
        with zipfile.ZipFile(SHARED) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith("train/"))
            chosen = names[:: len(names) // COUNT][:COUNT]
            return "CIFAR-10", [images.decode(archive.read(name), name) for name in chosen]
    scans = np.resize(load_digits().images * 15, (COUNT, 8, 8)).astype(np.uint8)
    scans[:, 0, :2] = np.arange(COUNT)[:, None] // (1, 256) % 256  # makes repeated digits distinct
    return "digits, enlarged", [Image.fromarray(scan).convert("RGB").resize((32, 32)) for scan in scans]


class ZippedImages(Dataset):
    """EDM's data set: images are members of a zip and are decoded on every access."""

    def __init__(self, path: Path, labels: list[int]):
        self.zip, self.labels = zipfile.ZipFile(path), labels
        self.names = sorted(self.zip.namelist())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        with self.zip.open(self.names[number]) as file:
            return np.array(Image.open(file)).transpose(2, 0, 1), self.labels[number]


def write_zip(path: Path, content: list[Image.Image]) -> None:
    """Write PNGs as EDM does: without compression in PNG and zip, so they are cheap to decode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(content):
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=0)
            archive.writestr(f"{number:08d}.png", buffer.getvalue())


def write_tars(folder: Path, content: list[Image.Image], labels: list[int]) -> list[Path]:
    """Write the images as :mod:`diffit.shard` does."""
    paths = [folder / f"{k}-of-{SHARDS}.tar" for k in range(SHARDS)]
    for k, path in enumerate(paths):
        numbers = range(k * COUNT // SHARDS, (k + 1) * COUNT // SHARDS)
        samples = ((f"{i:08d}", {"png": images.png(content[i]), "cls": str(labels[i]).encode()}) for i in numbers)
        tars.write_tar(path, samples, resolution=32)
    gather(folder, SHARDS)
    return paths


def ours(folder: Path, draw: image_loader.Draw) -> Callable[[], Iterator[Batch]]:
    """Training's loader; each call of the result reads the next epoch."""
    dataset = image_loader.TrainingImages(*image_loader.decoded(folder), draw, seed=0)
    epochs, steps = itertools.count(), COUNT // BATCH

    def epoch() -> Iterator[Batch]:
        first = next(epochs) * steps
        numbers = image_loader.microbatches(first, first + steps, BATCH, BATCH, rank=0, world=1)
        for batch in image_loader.load(dataset, numbers, workers=0, pin=False):
            yield batch["images"], batch["labels"]

    return epoch


def zipped(path: Path, labels: list[int]) -> Callable[[], Iterator[Batch]]:
    """EDM's data set in random order."""
    loading = DataLoader(ZippedImages(path, labels), BATCH, shuffle=True)
    return lambda: iter(loading)


def streamed(paths: list[Path]) -> Callable[[], Iterator[Batch]]:
    """webdataset's pipeline on our tars: shuffled shards, shuffle buffer, decoding, batches."""
    pipeline = (
        webdataset.WebDataset([str(path) for path in paths], shardshuffle=SHARDS)
        .shuffle(SHUFFLE_BUFFER)
        .decode("rgb8")
        .to_tuple("png", "cls")
        .map_tuple(lambda image: image.transpose(2, 0, 1))
        .batched(BATCH)
    )
    return lambda: ((torch.as_tensor(pixels), torch.as_tensor(labels)) for pixels, labels in pipeline)


def multiset(epoch: Iterator[Batch]) -> Counter:
    """The number of times that an epoch delivers each labeled image."""
    return Counter(
        (image.numpy().tobytes(), int(label))
        for pixels, labels in epoch
        for image, label in zip(pixels, labels, strict=True)
    )


def main() -> None:
    torch.set_num_threads(1)
    what, content = pictures()
    labels = [number % 10 for number in range(COUNT)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = write_tars(folder / "tars", content, labels)
        write_zip(folder / "images.zip", content)
        plain = ours(folder / "tars", lambda _rng, _shape: {})
        drawing = ours(folder / "tars", process.build(AUGMENTED).draw)
        edm, wds = zipped(folder / "images.zip", labels), streamed(paths)

        delivered = [multiset(way()) for way in (plain, drawing, edm, wds)]
        assert all(content == delivered[0] for content in delivered), "the loaders deliver different images"
        print(f"loader: {COUNT} images ({what}), batches of {BATCH}; all loaders deliver the same images and labels")

        for name, way in (("no draws", plain), ("EDM's draws", drawing)):
            for other_name, other in (("a zip of PNGs", edm), ("webdataset", wds)):
                row = f"loader, {name}, against {other_name}"
                compare(row, lambda way=way: run(way), lambda other=other: run(other), REPEAT, images=COUNT)


def run(epoch: Callable[[], Iterator[Batch]]) -> None:
    """Read one epoch."""
    delivered = sum(len(pixels) for pixels, _labels in epoch())
    assert delivered == COUNT


if __name__ == "__main__":
    main()
