"""Where pictures come from: one small class a source, all alike, over what ``download`` left behind."""

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from diffit import files, images, listings
from diffit.cli import UserError
from diffit.imagenet import ImageNet
from diffit.listings import AGAIN
from diffit.published import Published


class Source(Protocol):
    """A numbered set of pictures with a class each."""

    class_names: list[str]
    labels: list[int]

    def image(self, i: int) -> Image.Image:
        """Picture ``i``, RGB, at its own size."""

    def name(self, i: int) -> str:
        """What an error calls picture ``i``."""


def digits() -> tuple[np.ndarray, list[int], str]:
    """scikit-learn's scans (uint8 [1797, 8, 8], ink from 0 to 16), their digits, and the sha256 over both."""
    bundle = load_digits()
    scans, labels = bundle.images.astype(np.uint8), bundle.target.astype(np.uint8)
    return scans, labels.tolist(), hashlib.sha256(scans.tobytes() + labels.tobytes()).hexdigest()


class Digits:
    """1,797 handwritten digits of 8×8 pixels, in shades of grey from white paper's 0 to full ink's 255."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        if spec["resolution"] < 8:
            raise UserError(f"resolution: {spec['resolution']} is below the digits' own 8; set 8 or more")
        self._scans, self.labels, sha256 = digits()
        self.class_names = [str(digit) for digit in range(10)]
        if sha256 != record["sha256"]:
            raise UserError(f"scikit-learn's digits are not those of {archive}/archive.json; {AGAIN}")

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(np.rint(self._scans[i] * (255 / 16)).astype(np.uint8)).convert("RGB")

    def name(self, i: int) -> str:
        return f"digit {i}"


class Cifar10:
    """The 50,000 training pictures of CIFAR-10, 32×32, in the order of the published batches."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        try:
            batches = CIFAR10(archive, train=True)  # compares each batch with its md5
        except RuntimeError:
            raise UserError(f"the CIFAR-10 batches in {archive} are missing or damaged; {AGAIN}") from None
        self._pixels, self.labels, self.class_names = batches.data, batches.targets, batches.classes

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self._pixels[i])

    def name(self, i: int) -> str:
        return f"CIFAR-10 picture {i}"


class Folder:
    """A folder of pictures as ``download`` listed it; with labels, its immediate subfolders are the classes."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        self._root, self._min_side = Path(record["path"]), spec["min_side"]
        self._entries = listings.read(archive, record)
        self.class_names = record["class_names"]
        if bool(self.class_names) != spec["labels"]:
            raise UserError(f"labels: {spec['labels']} is not how {archive} was listed; {AGAIN}")
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.labels = [numbers.get(path.split("/")[0], 0) for path, _ in self._entries]

    def image(self, i: int) -> Image.Image:
        data = listings.content(Path(self.name(i)), self._entries[i][1])
        return images.decode(data, self.name(i), self._min_side)

    def name(self, i: int) -> str:
        return str(self._root / self._entries[i][0])


SOURCES = {"digits": Digits, "cifar10": Cifar10, "folder": Folder, "imagenet": ImageNet, "adm": Published}


def open_source(archive: Path, spec: dict) -> tuple[Source, str]:
    """Open what ``download`` left in ``archive``; returns it and the sha256 that stands for its content."""
    record = files.read_json(archive / "archive.json", AGAIN)
    if record["source"] != spec["source"]:
        raise UserError(f"{archive} holds {record['source']}, the config says {spec['source']}; {AGAIN}")
    return SOURCES[spec["source"]](archive, record, spec), record["sha256"]
