"""The registry of data sources: the values of ``datasets.*.source`` in the config.

To add a source, write a module that satisfies :class:`Reader` and register a :class:`DataSource` that names it.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from diffit.cli import UserError
from diffit.data import imagenet_classes
from diffit.data.listing import AGAIN
from diffit.data.origins import Origin
from diffit.registry import (
    BOOLEAN,
    COUNT,
    MD5,
    RESOLUTION,
    SHA1,
    SHA256,
    TEXT,
    Registry,
    constant,
    default,
    nullable,
    one_of,
)
from diffit.registry.settings import Setting
from diffit.store import files


class Images(Protocol):
    """Images by number. ``labels`` are indices into ``class_names``, or all 0 without classes."""

    class_names: list[str]
    labels: list[int]

    def image(self, i: int) -> Image.Image:
        """Image ``i``, RGB, in its original size."""

    def name(self, i: int) -> str:
        """The name of image ``i`` for error messages."""


class Reader(Protocol):
    """The contract of the module of a data source. ``spec`` is the data set's entry in the config."""

    def origin(self, spec: dict) -> Origin:
        """Where :meth:`fetch` gets the data from. Preflight checks that it is available."""

    def fetch(self, spec: dict, out: Path) -> dict:
        """Called by the download stage: get the data, verify them and write the archive into the folder ``out``.

        Returns JSON values for ``archive.json``, among them ``sha256`` of the content. Data that stay in the user's
        folder are listed (:mod:`diffit.data.listing`). Raises :class:`UserError` for missing, damaged or other data.
        """

    def open_images(self, archive: Path, record: dict, spec: dict) -> Images:
        """Called by the shard stage: open the archive, whose ``archive.json`` is ``record``.

        Raises :class:`UserError` if the archive or the listed data changed since the download.
        """


@dataclass(frozen=True)
class DataSource:
    """A data source.

    Args:
        name: the value of ``source``.
        description: one sentence for people.
        module: full name of the module, a :class:`Reader`. It is imported when it is needed, and its code is part of
            the fingerprints of data sets of this source only.
        settings: the keys of a data set of this source, without ``source``, ``shards`` and ``references``.
        images: number of images, None if it is known only after the download.
        classes: number of classes, None if it is known only after the download.
        references: whether a data set of this source may be scored against another data set.
        statistics: whether the archive holds published statistics, which protocols with ``published_statistics`` use
            instead of measured ones.
        local: whether the images are always the user's own, in the folder ``path``.
        watched: returns the folder whose modification time shows that images were added or removed, None without one.
    """

    name: str
    description: str
    module: str
    settings: Mapping[str, Setting]
    images: int | None = None
    classes: int | None = None
    references: bool = True
    statistics: bool = False
    local: bool = False
    watched: Callable[[dict], Path | None] = lambda spec: None

    def load(self) -> Reader:
        """Import the module."""
        return importlib.import_module(self.module)


def _folder(spec: dict) -> Path | None:
    return Path(spec["path"]).expanduser() if spec["path"] else None


def _class_folders(spec: dict) -> Path | None:
    folder = _folder(spec)
    return folder / "train" if folder and (folder / "train").is_dir() else folder


_PATH = default(nullable(TEXT), None)
_RESIZE = default(one_of("center-crop", "lanczos", "none"), "center-crop")
_COMMON = {
    "resolution": RESOLUTION,
    "path": _PATH,
    "labels": default(BOOLEAN, False),
    "resize": _RESIZE,
    "min_side": default(COUNT, 8),
}

SOURCES: Registry[DataSource] = Registry(
    "data source",
    DataSource(
        name="digits",
        description="scikit-learn's 1,797 handwritten digits of 8×8 pixels",
        module="diffit.data.digits",
        settings={**_COMMON, "resolution": {**RESOLUTION, "minimum": 8}},
        images=1_797,
        classes=10,
    ),
    DataSource(
        name="cifar10",
        description="the 50,000 training images of CIFAR-10, 32×32 pixels",
        module="diffit.data.cifar10",
        settings=_COMMON,
        images=50_000,
        classes=10,
    ),
    DataSource(
        name="folder",
        description="a folder of images; with labels, its subfolders are the classes",
        module="diffit.data.folder",
        settings=_COMMON,
        local=True,
        watched=_folder,
    ),
    DataSource(
        name="imagenet",
        description="ImageNet's training set as a tar, class folders or Parquet files",
        module="diffit.data.imagenet",
        settings={
            "resolution": RESOLUTION,
            "path": _PATH,
            "md5": default(nullable(MD5), None),
            "revision": default(SHA1, "49e2ee26f3810fb5a7536bbf732a7b07389a47b5"),
            "subset": default(BOOLEAN, False),
            "labels": constant(True),
            "resize": _RESIZE,
        },
        images=imagenet_classes.IMAGES,
        classes=len(imagenet_classes.WNIDS),
        watched=_class_folders,
    ),
    DataSource(
        name="adm",
        description="ADM's reference batch of ImageNet: 10,000 images, and statistics of the whole training set",
        module="diffit.data.adm_batch",
        settings={
            "resolution": RESOLUTION,
            "path": _PATH,
            "sha256": default(nullable(SHA256), None),
            "labels": constant(False),
            "resize": constant("none"),
            "statistics_images": default({"type": "integer", "minimum": 2}, imagenet_classes.IMAGES),
        },
        images=10_000,
        references=False,
        statistics=True,
    ),
)


def open_archive(archive: Path, spec: dict) -> tuple[Images, str]:
    """Open an archive of the download stage; return its images and the sha256 of their content.

    Raises :class:`UserError` for a missing or damaged archive and for one of another source.
    """
    record = files.read_json(archive / "archive.json", AGAIN)
    if record["source"] != spec["source"]:
        raise UserError(f"{archive} holds {record['source']}, but the config says {spec['source']}; {AGAIN}")
    return SOURCES[spec["source"]].load().open_images(archive, record, spec), record["sha256"]
