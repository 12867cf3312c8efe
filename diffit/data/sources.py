"""The registry of data sources: what ``datasets.*.source`` can be, and what each stage needs to know of it."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

from PIL import Image

from diffit.cli import UserError
from diffit.data import imagenet_classes
from diffit.data.listing import AGAIN
from diffit.registry import (
    BOOLEAN,
    COUNT,
    MD5,
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
    """A numbered set of images, each with a class."""

    class_names: list[str]
    labels: list[int]

    def image(self, i: int) -> Image.Image:
        """Image ``i``, RGB, at its own size."""

    def name(self, i: int) -> str:
        """How error messages name image ``i``."""


@dataclass(frozen=True)
class DataSource:
    """One data source.

    Args:
        name: what ``source:`` says.
        description: one sentence for people.
        module: the module that reads it. It has ``fetch(spec, out) -> dict``, which fills the archive folder and
            returns what its record says beside the source; ``open_images(archive, record, spec) -> Images``; and
            ``origin(spec)``, one of :mod:`diffit.data.origins`. It is imported when it is used, and its code is part
            of the fingerprint of this source's data sets only.
        settings: the keys of a data set of this source, without ``source``, ``shards`` and ``references``.
        images: the number of its images, None where only the download tells.
        classes: the number of its classes, None where only the download tells.
        references: whether a data set of this source can be scored against another one.
        statistics: whether its archive holds published statistics, which count instead of measured ones.
        watched: the folder whose time of change means that images were added or removed, where there is one.
    """

    name: str
    description: str
    module: str
    settings: Mapping[str, Setting]
    images: int | None = None
    classes: int | None = None
    references: bool = True
    statistics: bool = False
    watched: Callable[[dict], Path | None] = lambda spec: None

    def load(self) -> ModuleType:
        """The module that reads this source."""
        return importlib.import_module(self.module)


def _folder(spec: dict) -> Path | None:
    return Path(spec["path"]).expanduser() if spec["path"] else None


def _class_folders(spec: dict) -> Path | None:
    folder = _folder(spec)
    return folder / "train" if folder and (folder / "train").is_dir() else folder


_PATH = default(nullable(TEXT), None)
_RESIZE = default(one_of("center-crop", "lanczos", "none"), "center-crop")
_COMMON = {
    "resolution": COUNT,
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
        settings=_COMMON,
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
        watched=_folder,
    ),
    DataSource(
        name="imagenet",
        description="ImageNet's training set as a tar, class folders or Parquet files",
        module="diffit.data.imagenet",
        settings={
            "resolution": COUNT,
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
            "resolution": COUNT,
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
    """Open what the download stage left in ``archive``; returns the images and the sha256 of their content."""
    record = files.read_json(archive / "archive.json", AGAIN)
    if record["source"] != spec["source"]:
        raise UserError(f"{archive} holds {record['source']}, the config says {spec['source']}; {AGAIN}")
    return SOURCES[spec["source"]].load().open_images(archive, record, spec), record["sha256"]
