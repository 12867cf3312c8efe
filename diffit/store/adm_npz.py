"""The npz files of ADM's evaluator (https://github.com/openai/guided-diffusion, evaluations/).

Samples:          ``arr_0``, images uint8 [n, H, W, 3], and optionally ``arr_1``, labels int64 [n].
Reference batch:  ``arr_0``, and statistics of the whole training set: ``mu`` float64 [2048] and ``sigma`` [2048, 2048],
                  mean and covariance of Inception's features; ``mu_s`` [2023] and ``sigma_s`` [2023, 2023], mean and
                  covariance of its spatial features.
"""

import math
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from diffit.cli import UserError
from diffit.store import files

IMAGES, LABELS = "arr_0", "arr_1"
# Names of mean and covariance by the array of features; see diffit/scoring/inception.py.
STATISTICS = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
WIDTHS = {"features": 2048, "spatial": 2023}
MEMBERS = (IMAGES, *(name for pair in STATISTICS.values() for name in pair))


def holds_statistics(path: Path) -> bool:
    """Whether an npz file is a reference batch and not only a set of images."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in MEMBERS} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def extract(path: Path, out: Path, resolution: int | None = None) -> int:
    """Write each member of a reference batch to ``out/{name}.npy``; return the number of images.

    Raises :class:`UserError` for any other file, and for images of another ``resolution``. All members are checked
    before the first one is inflated; files of an earlier batch in ``out`` stay until all are extracted.
    """
    try:
        with zipfile.ZipFile(path) as archive, files.scratch_folder(out) as scratch:
            shapes = {name: _shape(path, archive, name) for name in MEMBERS}
            if resolution and shapes[IMAGES][1:] != (resolution, resolution, 3):
                raise UserError(
                    f"{path} holds images {list(shapes[IMAGES][1:])}, but the data set's resolution is {resolution}; "
                    "use the batch of that resolution"
                )
            for name in MEMBERS:
                with files.atomic(scratch / f"{name}.npy") as temporary, temporary.open("wb") as target:
                    shutil.copyfileobj(archive.open(f"{name}.npy"), target, 2**24)
            for name in MEMBERS:
                (scratch / f"{name}.npy").replace(out / f"{name}.npy")
    except (KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a reference batch of ADM ({error}); correct the path or download the file again"
        ) from error
    return shapes[IMAGES][0]


def _shape(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape of a member, by its header only. Raises :class:`UserError` unless type, shape and bytes are right."""
    with archive.open(f"{name}.npy") as file:
        try:
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path} is not a reference batch of ADM: {name} is not an array ({error}); download the file again"
            ) from error
        expected = file.tell() + math.prod(shape) * dtype.itemsize
    rank, width = next(
        ((names.index(name) + 1, WIDTHS[array]) for array, names in STATISTICS.items() if name in names), (4, None)
    )
    if name == IMAGES:
        fits, wanted = dtype == np.uint8 and len(shape) == rank and shape[3] == 3, "uint8 [n, H, W, 3]"
    else:
        fits, wanted = dtype.kind == "f" and shape == (width,) * rank, f"float64 {[width] * rank}"
    if not fits:
        raise UserError(f"{path} holds {name} of {dtype} {list(shape)} instead of {wanted}; download the file again")
    if (size := archive.getinfo(f"{name}.npy").file_size) != expected:
        raise UserError(f"{path} holds {name} of {size:,} bytes instead of {expected:,}; download the file again")
    return shape


def statistics(archive: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The published mean float64 [d] and covariance float64 [d, d] by array of features, from extracted members."""
    return {
        array: tuple(np.load(archive / f"{name}.npy", allow_pickle=False).astype(np.float64) for name in names)
        for array, names in STATISTICS.items()
    }
