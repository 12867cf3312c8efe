"""ImageNet as the parquet files of the Hugging Face data set ``ILSVRC/imagenet-1k``, read by row groups.

Its 294 files of the training set (about 150 GB) have the columns ``image``, a struct of the JPEG file's ``bytes`` and
its ``path`` (``n03954731_53652_n03954731.JPEG``: the file's name of old, and its class again), and ``label``.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffit.cli import UserError, progress
from diffit.data.imagenet_classes import NUMBERS
from diffit.data.listing import AGAIN
from diffit.store import files

REPOSITORY = "ILSVRC/imagenet-1k"
PATTERN = "train-*.parquet"


def paths(folder: Path) -> list[Path]:
    """The parquet files of the training set in a folder or in its ``data``, where the hub has them, in order."""
    return sorted(folder.glob(PATTERN)) or sorted(folder.glob(f"data/{PATTERN}"))


def download(revision: str, parent: Path) -> Path:
    """Fetch what is not there yet of the data set at a commit into a folder under ``parent``; returns the folder.

    The folder is named after the commit and shared by the data sets of all resolutions. The hub's client verifies what
    it fetches and locks the files, so that several may ask at once. Raises :class:`UserError` that says what to do.
    """
    from huggingface_hub import get_token, snapshot_download  # here, since few need it
    from huggingface_hub.errors import HTTPError, XetDownloadError

    allowed = f"accept the licence on the page of {REPOSITORY} on the Hugging Face hub and set HF_TOKEN to your token"
    instead = "or put ImageNet's tar on this machine and name it under path: in the data set's config"
    if not get_token():
        raise UserError(f"ImageNet's download needs a token of the Hugging Face hub; {allowed}, {instead}")
    folder = parent / f"imagenet-1k-{revision[:8]}"
    try:
        snapshot_download(
            REPOSITORY, repo_type="dataset", revision=revision, allow_patterns=f"data/{PATTERN}", local_dir=folder
        )
    except (OSError, HTTPError, XetDownloadError) as error:
        if full := files.write_error(error):
            raise full from error
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise UserError(f"the Hugging Face hub refuses {REPOSITORY} to your token; {allowed}, {instead}") from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{REPOSITORY} could not be downloaded ({reason}); run the same command again where there is a network: "
            f"it goes on with what is there, {instead}"
        ) from error
    return folder


class Parquet:
    """Parquet files. An entry of the listing is ``[wnid/file, parquet file, row group, row]``, in their own order."""

    def __init__(self, path: Path, archive: Path, entries: list):
        self._paths, self._entries = {file.name: file for file in paths(path)}, entries
        self._held, self._pictures = None, None  # the row group that was read last, and its pictures

    @staticmethod
    def listing(path: Path, out: Path, spec: dict) -> list:
        """Every picture, of which names and labels alone are read; :class:`UserError` where the two disagree."""
        return [entry for file in progress(paths(path), desc="list", unit="file") for entry in _rows(file)]

    def read(self, i: int) -> bytes:
        """The JPEG file of a picture. Pictures of one row group (100 at the hub) are fast one after the other."""
        name, file, group, row = self._entries[i]
        if file not in self._paths:
            raise UserError(f"{file} has vanished since it was listed; {AGAIN}")
        if self._held != (file, group):
            with _opened(self._paths[file]) as parquet:
                self._pictures = parquet.read_row_group(group, columns=["image"])["image"].combine_chunks()
            self._held = file, group
        picture = self._pictures[row].as_py() if row < len(self._pictures) else {"path": ""}
        if not name.endswith(f"/{picture['path']}"):
            raise UserError(f"{self._paths[file]} has changed since it was listed; {AGAIN}")
        return picture["bytes"]


def _rows(file: Path) -> Iterator[list]:
    with _opened(file) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, columns=["image.path", "label"])
            pictures, labels = table["image"].to_pylist(), table["label"].to_pylist()
            for row, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
                yield [f"{_wnid(file, picture['path'], label)}/{picture['path']}", file.name, group, row]


def _wnid(file: Path, name: str | None, label: int) -> str:
    """The class that a picture's name says; :class:`UserError` where its label says another."""
    wnid = (re.findall(r"n\d{8}", name or "") or [None])[-1]
    if NUMBERS.get(wnid) != label:
        raise UserError(
            f"{file}: the picture {name} has the label {label}, but its class has the number {NUMBERS.get(wnid)}; "
            f"take the training set of {REPOSITORY}"
        )
    return wnid


@contextmanager
def _opened(file: Path) -> Iterator:
    """A parquet file; what cannot be read of it is a :class:`UserError`."""
    from pyarrow.parquet import ParquetFile  # here, since only this form needs it

    try:
        with ParquetFile(file) as parquet:
            yield parquet
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own are of these
        if isinstance(error, UserError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{file} is no whole parquet file of {REPOSITORY} ({reason}); get it again") from error
