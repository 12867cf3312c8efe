"""A data source for tests: coloured stripes, computed from a seed. It satisfies :class:`diffit.data.sources.Reader`."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from diffit.cli import UserError
from diffit.data.origins import Local

FILE = "stripes.npy"


def origin(spec: dict) -> Local:
    """The stripes are not downloaded."""
    return Local()


def fetch(spec: dict, out: Path) -> dict:
    """Draw ``count`` images, uint8 [n, 8, 8, 3], from ``seed``."""
    colors = np.random.default_rng(spec["seed"]).integers(0, 256, (spec["count"], 1, 8, 3), np.uint8)
    images = np.broadcast_to(colors, (spec["count"], 8, 8, 3))
    np.save(out / FILE, images)
    return {"count": len(images), "sha256": hashlib.sha256(images.tobytes()).hexdigest()}


class Stripes:
    """The images, of two classes in turn."""

    class_names = ("even", "odd")

    def __init__(self, archive: Path, record: dict, spec: dict):
        self._images = np.load(archive / FILE)
        if hashlib.sha256(self._images.tobytes()).hexdigest() != record["sha256"]:
            raise UserError(f"{archive / FILE} is damaged; download it again")
        self.labels = [i % 2 for i in range(len(self._images))]

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self._images[i])

    def name(self, i: int) -> str:
        return f"stripes {i}"


open_images = Stripes
