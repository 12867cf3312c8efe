"""The npz files of ADM's evaluator: images, and reference batches with the statistics of a whole training set.

``arr_0`` are images, uint8 [n, H, W, 3]. A reference batch also has ``mu`` and ``sigma``, mean and covariance of
Inception's features, and ``mu_s`` and ``sigma_s``, those of the spatial features
(https://github.com/openai/guided-diffusion, evaluations/).
"""

import shutil
import zipfile
from pathlib import Path

import numpy as np

from diffit.cli import UserError
from diffit.store import files

IMAGES = "arr_0"
# The statistics by the array of features that they are of.
STATISTICS = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
MEMBERS = (IMAGES, *(name for pair in STATISTICS.values() for name in pair))


def holds_statistics(path: Path) -> bool:
    """Whether an npz file is such a batch, and no mere set of images."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in MEMBERS} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def extract(path: Path, out: Path) -> None:
    """Write the members of a batch into the folder ``out``; raises :class:`UserError` for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in MEMBERS:
                with files.atomic(out / f"{name}.npy") as temporary, temporary.open("wb") as target:
                    shutil.copyfileobj(archive.open(f"{name}.npy"), target, 2**24)
        images = np.load(out / f"{IMAGES}.npy", mmap_mode="r", allow_pickle=False)
        shapes = [values.shape for pair in statistics(out).values() for values in pair]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no reference batch of ADM ({error}); name one, or get it again") from error
    if [(d,) * rank for d in (2048, 2023) for rank in (1, 2)] != shapes:
        raise UserError(f"{path} holds statistics {shapes}, not those of 2048 features and 2023 spatial ones")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"{path} holds {images.dtype} {list(images.shape)} as {IMAGES}, not uint8 [n, H, W, 3]")


def statistics(archive: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The published mean float64 [d] and covariance float64 [d, d], by the array of features."""
    return {
        array: tuple(np.load(archive / f"{name}.npy", allow_pickle=False).astype(np.float64) for name in names)
        for array, names in STATISTICS.items()
    }
