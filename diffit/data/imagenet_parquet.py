"""ImageNet as Parquet files of the Hugging Face data set ``ILSVRC/imagenet-1k``, read by row groups.

The training set has 294 files (about 150 GB) with two columns: ``image``, a struct of the JPEG file's ``bytes`` and its
``path``, which is the original name followed by the class (``n03954731_53652_n03954731.JPEG``); and ``label``.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from diffit.cli import UserError, progress
from diffit.data.imagenet_classes import NUMBERS
from diffit.data.listing import AGAIN
from diffit.fetch import hub

REPOSITORY = "ILSVRC/imagenet-1k"
PATTERN = "train-*.parquet"


def paths(folder: Path) -> list[Path]:
    """The Parquet files of the training set in a folder or in its subfolder ``data`` (the hub's layout), in order."""
    return sorted(folder.glob(PATTERN)) or sorted(folder.glob(f"data/{PATTERN}"))


def download(revision: str, parent: Path) -> Path:
    """Download the missing files of the data set at a commit into a folder in ``parent``; return the folder.

    The folder is named after the commit and shared by the data sets of all resolutions. Several processes may download
    at the same time. Raises :class:`UserError` without a token, without access to the data set, and for network errors.
    """
    folder = parent / f"imagenet-1k-{revision[:8]}"
    if _complete(paths(folder)):
        return folder
    source = hub.Repository(
        REPOSITORY, revision, "put ImageNet's tar on this machine and set path: of the data set to it", "dataset"
    )
    if not hub.has_token():
        raise UserError(f"the download of ImageNet needs a token of the Hugging Face hub; {source.denied}")
    commit, entries = hub.listing(source)
    wanted = [entry for entry in entries if fnmatch(entry.path, f"data/{PATTERN}")]
    if not wanted:
        raise UserError(f"{REPOSITORY} has no files {PATTERN} at {commit}; correct revision: of the data set")
    hub.download(source, commit, wanted, folder)
    return folder


def _complete(found: list[Path]) -> bool:
    """Whether all files are there: train-00000-of-00294.parquet says how many there are."""
    numbers = [re.fullmatch(r"train-(\d+)-of-(\d+)\.parquet", path.name) for path in found]
    return bool(found) and all(numbers) and {int(match[2]) for match in numbers} == {len(found)}


class Parquet:
    """Parquet files. An entry of the listing is ``[wnid/file, Parquet file, row group, row]``, in the files' order."""

    def __init__(self, path: Path, archive: Path, entries: list):
        self._paths, self._entries = {file.name: file for file in paths(path)}, entries
        self._held, self._images = None, None  # the row group that was read last, and its images

    @staticmethod
    def listing(path: Path, out: Path, spec: dict) -> list:
        """List all images. Only names and labels are read. Raises :class:`UserError` if they disagree."""
        return [entry for file in progress(paths(path), desc="list", unit="file") for entry in _rows(file)]

    def read(self, i: int) -> bytes:
        """The JPEG file of an image. Consecutive images of a row group (100 images on the hub) are read only once."""
        name, file, group, row = self._entries[i]
        if file not in self._paths:
            raise UserError(f"{file} is missing, although it was listed; {AGAIN}")
        if self._held != (file, group):
            with _opened(self._paths[file]) as parquet:
                self._images = parquet.read_row_group(group, columns=["image"])["image"].combine_chunks()
            self._held = file, group
        image = self._images[row].as_py() if row < len(self._images) else {"path": ""}
        if not name.endswith(f"/{image['path']}"):
            raise UserError(f"{self._paths[file]} has changed since it was listed; {AGAIN}")
        return image["bytes"]


def _rows(file: Path) -> Iterator[list]:
    with _opened(file) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, columns=["image.path", "label"])
            images, labels = table["image"].to_pylist(), table["label"].to_pylist()
            for row, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield [f"{_wnid(file, image['path'], label)}/{image['path']}", file.name, group, row]


def _wnid(file: Path, name: str | None, label: int) -> str:
    """The class in an image's name. Raises :class:`UserError` if its label is of another class."""
    wnid = (re.findall(r"n\d{8}", name or "") or [None])[-1]
    if NUMBERS.get(wnid) != label:
        raise UserError(
            f"{file}: the image {name} has the label {label}, but its class has the number {NUMBERS.get(wnid)}; "
            f"use the training set of {REPOSITORY}"
        )
    return wnid


@contextmanager
def _opened(file: Path) -> Iterator:
    """Open a Parquet file; turn errors while it is read into a :class:`UserError`."""
    from pyarrow.parquet import ParquetFile  # here, because only this form needs it

    try:
        with ParquetFile(file) as parquet:
            yield parquet
    except (OSError, ValueError, KeyError) as error:  # pyarrow's exceptions are subclasses of these
        if isinstance(error, UserError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{file} is not a complete Parquet file of {REPOSITORY} ({reason}); get it again") from error
