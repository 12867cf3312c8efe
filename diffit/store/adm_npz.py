"""The npz files of ADM's evaluator (https://github.com/openai/guided-diffusion, evaluations/).

Samples:          ``arr_0``, images uint8 [n, H, W, 3], and optionally ``arr_1``, labels int64 [n].
Reference batch:  ``arr_0``, and statistics of the whole training set: ``mu`` float64 [2048] and ``sigma`` [2048, 2048],
                  mean and covariance of Inception's features; ``mu_s`` [2023] and ``sigma_s`` [2023, 2023], mean and
                  covariance of its spatial features.
"""

import shutil
import zipfile
from pathlib import Path

import numpy as np

from diffit.cli import UserError
from diffit.store import files

IMAGES, LABELS = "arr_0", "arr_1"
# Names of mean and covariance by the array of features; see diffit/scoring/inception.py.
STATISTICS = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
MEMBERS = (IMAGES, *(name for pair in STATISTICS.values() for name in pair))


def holds_statistics(path: Path) -> bool:
    """Whether an npz file is a reference batch and not only a set of images."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in MEMBERS} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def extract(path: Path, out: Path) -> None:
    """Write each member of a reference batch to ``out/{name}.npy``. Raises :class:`UserError` for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in MEMBERS:
                with files.atomic(out / f"{name}.npy") as temporary, temporary.open("wb") as target:
                    shutil.copyfileobj(archive.open(f"{name}.npy"), target, 2**24)
        images = np.load(out / f"{IMAGES}.npy", mmap_mode="r", allow_pickle=False)
        shapes = [values.shape for pair in statistics(out).values() for values in pair]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a reference batch of ADM ({error}); correct the path or download the file again"
        ) from error
    if [(d,) * rank for d in (2048, 2023) for rank in (1, 2)] != shapes:
        raise UserError(
            f"{path} holds statistics of shapes {shapes} instead of 2048 features and 2023 spatial features; "
            "download the file again"
        )
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(
            f"{path} holds {IMAGES} of {images.dtype} {list(images.shape)} instead of uint8 [n, H, W, 3]; "
            "download the file again"
        )


def statistics(archive: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The published mean float64 [d] and covariance float64 [d, d] by array of features, from extracted members."""
    return {
        array: tuple(np.load(archive / f"{name}.npy", allow_pickle=False).astype(np.float64) for name in names)
        for array, names in STATISTICS.items()
    }
