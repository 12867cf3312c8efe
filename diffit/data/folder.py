"""The data source ``folder``: a user's own images, listed where they are."""

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


def origin(spec: dict) -> Local:
    """The folder itself, which the configuration must name."""
    return Local()


def fetch(spec: dict, out: Path) -> dict:
    """List a folder's pictures, subfolders included, by path; hidden ones and other files do not count.

    ``listing.jsonl`` holds one ``["relative/path", bytes]`` a line; its hash is the archive's. Linked
    subfolders are followed. With ``labels`` the immediate subfolders, sorted by name, are the classes.
    """
    if not spec.get("path"):
        raise UserError("source: folder needs path:, the folder of your images; set it in the data set's config")
    root = Path(spec["path"]).expanduser()
    if not root.is_dir():
        raise UserError(f"path: {root} is no folder here; set it to the folder that holds the images")
    paths = sorted(_pictures(root), key=lambda path: path.split("/"))
    if not paths:
        raise UserError(f"{root} holds no images ({KINDS.replace(' ', ', ')}); set path to a folder that does")
    class_names = _class_names(root, paths) if spec.get("labels") else []
    sha256 = listing.write(out, ([path, (root / path).stat().st_size] for path in paths))
    found = {"path": str(root.absolute()), "count": len(paths), "modified": files.modified(root)}
    return {**found, "class_names": class_names, "sha256": sha256}


def _pictures(root: Path) -> Iterator[str]:
    seen = {root.resolve()}
    for folder, subfolders, names in os.walk(root, onerror=_unreadable, followlinks=True):
        here = Path(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in list(subfolders):  # a link may lead back up
            target = (here / name).resolve()
            if target in seen:
                subfolders.remove(name)
            seen.add(target)
        for name in names:
            if listing.is_picture(name):
                yield (here / name).relative_to(root).as_posix()


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read ({error.strerror}); allow it, or move it out of the folder")


def _class_names(root: Path, paths: list[str]) -> list[str]:
    if loose := [path for path in paths if "/" not in path]:
        raise UserError(f"{root / loose[0]} lies in no class folder; move it into one or set labels: false")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if empty := sorted(set(folders) - {path.split("/")[0] for path in paths}):
        raise UserError(f"the class folder {root / empty[0]} holds no images; fill it or remove it")
    return folders


class Folder:
    """A folder of pictures as ``download`` listed it; with labels, its immediate subfolders are the classes."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        self._root, self._min_side = Path(record["path"]), spec["min_side"]
        self._entries = listing.read(archive, record)
        self.class_names = record["class_names"]
        if bool(self.class_names) != spec["labels"]:
            raise UserError(f"labels: {spec['labels']} is not how {archive} was listed; {AGAIN}")
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.labels = [numbers.get(path.split("/")[0], 0) for path, _ in self._entries]

    def image(self, i: int) -> Image.Image:
        data = listing.content(Path(self.name(i)), self._entries[i][1])
        return images.decode(data, self.name(i), self._min_side)

    def name(self, i: int) -> str:
        return str(self._root / self._entries[i][0])


open_images = Folder
