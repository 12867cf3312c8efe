"""Where pictures come from: one small class a source, all alike, over what ``download`` left behind."""

import hashlib
import json
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from diffit import files, images
from diffit.cli import UserError

AGAIN = "run the download stage again: snakemake --forcerun download"


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
        listing = archive / "listing.jsonl"
        if not listing.is_file() or files.sha256(listing) != record["sha256"]:
            raise UserError(f"{listing} is missing or not the one that archive.json names; {AGAIN}")
        self._root, self._min_side = Path(record["path"]), spec["min_side"]
        self._entries = [json.loads(line) for line in listing.read_text().splitlines()]
        self.class_names = record["class_names"]
        if bool(self.class_names) != spec["labels"]:
            raise UserError(f"labels: {spec['labels']} is not how {archive} was listed; {AGAIN}")
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.labels = [numbers.get(path.split("/")[0], 0) for path, _ in self._entries]

    def image(self, i: int) -> Image.Image:
        _, size = self._entries[i]
        path = Path(self.name(i))
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path} has vanished since it was listed; {AGAIN}") from None
        if len(data) != size:
            raise UserError(f"{path} has {len(data)} bytes instead of the {size} that were listed; {AGAIN}")
        return images.decode(data, str(path), self._min_side)

    def name(self, i: int) -> str:
        return str(self._root / self._entries[i][0])


SOURCES = {"digits": Digits, "cifar10": Cifar10, "folder": Folder}


def open_source(archive: Path, spec: dict) -> tuple[Source, str]:
    """Open what ``download`` left in ``archive``; returns it and the sha256 that stands for its content."""
    record = files.read_json(archive / "archive.json", AGAIN)
    if record["source"] != spec["source"]:
        raise UserError(f"{archive} holds {record['source']}, the config says {spec['source']}; {AGAIN}")
    return SOURCES[spec["source"]](archive, record, spec), record["sha256"]
