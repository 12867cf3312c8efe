"""The data source ``folder``: the user's own images, listed without copying them."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from diffit.cli import UserError
from diffit.data import images, listing
from diffit.data.images import KINDS
from diffit.data.listing import AGAIN
from diffit.data.origins import Local
from diffit.store import files

log = logging.getLogger("diffit")


def origin(spec: dict) -> Local:
    """The user's own folder, which cannot be downloaded."""
    return Local()


def fetch(spec: dict, out: Path) -> dict:
    """List the images of the folder at ``path`` and its subfolders in ``listing.jsonl``, sorted by path.

    Each line is ``["relative/path", bytes]``. Hidden files and other files are skipped, linked subfolders are followed.
    With ``labels``, the immediate subfolders, sorted by name, are the classes. Raises :class:`UserError` for a folder
    that is missing or has no images, and for images without a class folder or class folders without images.
    """
    if not spec.get("path"):
        raise UserError("source: folder needs path:, the folder of your images; set it in the data set's config")
    root = Path(spec["path"]).expanduser()
    if not root.is_dir():
        raise UserError(f"path: '{root}' does not exist or is not a directory; set it to the folder of your images")
    paths = sorted(_image_paths(root), key=lambda path: path.split("/"))
    if not paths:
        raise UserError(f"{root} holds no images ({KINDS.replace(' ', ', ')}); set path: to a folder with images")
    class_names = _class_names(root, paths) if spec.get("labels") else []
    if not spec.get("labels") and (folders := sorted({path.split("/")[0] for path in paths if "/" in path})):
        log.info(
            "note: the %d subfolders of %s (%s, …) are not used as classes; set labels: true in the data set if they "
            "are classes", len(folders), root, folders[0],
        )  # fmt: skip
    sha256 = listing.write(out, ([path, (root / path).stat().st_size] for path in paths))
    found = {"path": str(root.absolute()), "count": len(paths), "modified": files.modified(root)}
    return {**found, "class_names": class_names, "sha256": sha256}


def _image_paths(root: Path) -> Iterator[str]:
    seen = {root.resolve()}
    for folder, subfolders, names in os.walk(root, onerror=_unreadable, followlinks=True):
        here = Path(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in list(subfolders):  # a link may lead back to a parent folder
            target = (here / name).resolve()
            if target in seen:
                subfolders.remove(name)
            seen.add(target)
        for name in names:
            if listing.is_image(name):
                yield (here / name).relative_to(root).as_posix()


def _unreadable(error: OSError) -> None:
    raise UserError(
        f"{error.filename} cannot be read ({error.strerror}); change its permissions or move it out of the folder"
    )


def _class_names(root: Path, paths: list[str]) -> list[str]:
    if loose := [path for path in paths if "/" not in path]:
        raise UserError(f"{root / loose[0]} is not in a class folder; move it into one or set labels: false")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if empty := sorted(set(folders) - {path.split("/")[0] for path in paths}):
        raise UserError(f"the class folder {root / empty[0]} holds no images; fill it or remove it")
    return folders


class Folder:
    """The images that the download stage listed. With ``labels``, the immediate subfolders are the classes.

    Raises :class:`UserError` if the listing is damaged or was made with another value of ``labels``.
    """

    def __init__(self, archive: Path, record: dict, spec: dict):
        self._root, self._min_side = Path(record["path"]), spec["min_side"]
        self._entries = listing.read(archive, record)
        self.class_names = record["class_names"]
        if bool(self.class_names) != spec["labels"]:
            raise UserError(f"{archive} was not listed with labels: {spec['labels']}; {AGAIN}")
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.labels = [numbers.get(path.split("/")[0], 0) for path, _ in self._entries]

    def image(self, i: int) -> Image.Image:
        data = listing.content(Path(self.name(i)), self._entries[i][1])
        return images.decode(data, self.name(i), self._min_side)

    def name(self, i: int) -> str:
        return str(self._root / self._entries[i][0])


open_images = Folder
