"""The data source ``digits``: scikit-learn's handwritten digits, which need no download."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from diffit.cli import UserError
from diffit.data.listing import AGAIN
from diffit.data.origins import Included


def origin(spec: dict) -> Included:
    """Where the digits come from."""
    return Included("scikit-learn")


def fetch(spec: dict, out: Path) -> dict:
    """Record count and hash; the scans themselves are part of scikit-learn."""
    _, labels, sha256 = scans()
    return {"count": len(labels), "sha256": sha256}


def scans() -> tuple[np.ndarray, list[int], str]:
    """scikit-learn's scans (uint8 [1797, 8, 8], ink from 0 to 16), their digits, and the sha256 over both."""
    bundle = load_digits()
    scans, labels = bundle.images.astype(np.uint8), bundle.target.astype(np.uint8)
    return scans, labels.tolist(), hashlib.sha256(scans.tobytes() + labels.tobytes()).hexdigest()


class Digits:
    """1,797 handwritten digits of 8×8 pixels, in shades of grey from white paper's 0 to full ink's 255."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        if spec["resolution"] < 8:
            raise UserError(f"resolution: {spec['resolution']} is below the digits' own 8; set 8 or more")
        self._scans, self.labels, sha256 = scans()
        self.class_names = [str(digit) for digit in range(10)]
        if sha256 != record["sha256"]:
            raise UserError(f"scikit-learn's digits are not those of {archive}/archive.json; {AGAIN}")

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(np.rint(self._scans[i] * (255 / 16)).astype(np.uint8)).convert("RGB")

    def name(self, i: int) -> str:
        return f"digit {i}"


open_images = Digits
