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
    """The package that contains the digits."""
    return Included("scikit-learn")


def fetch(spec: dict, out: Path) -> dict:
    """Record count and sha256. Nothing is written to ``out``, because the scans are part of scikit-learn."""
    _, labels, sha256 = scans()
    return {"count": len(labels), "sha256": sha256}


def scans() -> tuple[np.ndarray, list[int], str]:
    """scikit-learn's scans, uint8 [1797, 8, 8] from 0 (paper) to 16 (ink), their digits, and the sha256 of both."""
    bundle = load_digits()
    scans, labels = bundle.images.astype(np.uint8), bundle.target.astype(np.uint8)
    return scans, labels.tolist(), hashlib.sha256(scans.tobytes() + labels.tobytes()).hexdigest()


class Digits:
    """1,797 handwritten digits of 8×8 pixels, grey levels from 0 for paper to 255 for full ink.

    Raises :class:`UserError` for a resolution below 8, and if scikit-learn's scans changed since the download.
    """

    def __init__(self, archive: Path, record: dict, spec: dict):
        if spec["resolution"] < 8:
            raise UserError(f"resolution: {spec['resolution']} is below the digits' own 8; set it to 8 or more")
        self._scans, self.labels, sha256 = scans()
        self.class_names = [str(digit) for digit in range(10)]
        if sha256 != record["sha256"]:
            raise UserError(f"scikit-learn's digits are not the ones that {archive}/archive.json describes; {AGAIN}")

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(np.rint(self._scans[i] * (255 / 16)).astype(np.uint8)).convert("RGB")

    def name(self, i: int) -> str:
        return f"digit {i}"


open_images = Digits
