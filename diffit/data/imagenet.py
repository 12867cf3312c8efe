"""The data source ``imagenet``: ImageNet's training set (ILSVRC2012) in the forms in which it is distributed.

    path: …/ILSVRC2012_img_train.tar   a tar of 1,000 tars of JPEG files; shards read it by offset, in parallel
    path: …/train                      class folders, or the folder that contains train
    path: null                         Parquet files, downloaded from the Hugging Face hub; path: may be their folder

Nothing is unpacked. Labels are indices into the sorted list of all 1,000 wnids, also for subsets. Tar and class folders
give the same images in the same order (by wnid and name), and thus the same bytes of every shard. Parquet files have
their own order.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from diffit.cli import UserError, progress
from diffit.data import imagenet_parquet, images, listing
from diffit.data.imagenet_classes import IMAGES, NUMBERS, WNIDS, wnid_of
from diffit.data.origins import Hub
from diffit.store import files

TAR = "ILSVRC2012_img_train.tar"
MD5 = "1d675b47d978889d74fa0da5fadfb00e"  # of the tar, published on image-net.org
CHUNK = 1 << 20

GET_AGAIN = "get it again from image-net.org, or set md5: to the md5 of your tar"
SET_PATH = f"set path: to {TAR}, a folder of class folders or of Parquet files, or to null to download it"


# ------------------------------------------------------------------------------------------- download stage


def origin(spec: dict) -> Hub:
    """The repository of the Parquet files."""
    return Hub(imagenet_parquet.REPOSITORY, spec["revision"], "dataset")


def fetch(spec: dict, out: Path) -> dict:
    """List the images at ``path``, or of a download of ImageNet; return form, path, count, classes and sha256.

    Raises :class:`UserError` for a tar with another md5, for images outside the 1,000 classes or with a wrong label,
    and, without ``subset``, for anything but the whole training set.
    """
    path = Path(spec["path"]).expanduser().absolute() if spec["path"] else None
    form = form_of(path) if path else "parquet"
    if spec["md5"] and form != "tar":
        raise UserError(f"md5: applies only to ImageNet's tar, but path: is {spec['path']}; remove the key md5")
    if not path:
        path = imagenet_parquet.download(spec["revision"], out.parent)
    if form == "folders" and (path / "train").is_dir():
        path /= "train"
    out.mkdir(parents=True, exist_ok=True)
    entries = FORMS[form].listing(path, out, spec)
    present = _check(path, [entry[0] for entry in entries], spec["subset"])
    sha256 = listing.write(out, entries)
    changed = {"modified": files.modified(path)} if path.is_dir() else {}
    found = {"form": form, "path": str(path), "count": len(entries), "classes": present, **changed}
    return {**found, "sha256": sha256}


def form_of(path: Path) -> str:
    """``tar``, ``folders`` or ``parquet``, by what is at a path. Raises :class:`UserError` if there is nothing."""
    if path.is_file():
        return "tar"
    if not path.is_dir():
        raise UserError(f"path: '{path}' does not exist; {SET_PATH}")
    return "parquet" if imagenet_parquet.paths(path) else "folders"


def _check(path: Path, names: list[str], subset: bool) -> int:
    """Check the names ``wnid/file`` of the images found at a path; return the number of classes that have images.

    Raises :class:`UserError` for no images, unknown classes, and an incomplete training set without ``subset``.
    """
    present = {wnid_of(name) for name in names}
    if not present:
        raise UserError(f"{path} holds no images of ImageNet; {SET_PATH}")
    if unknown := sorted(present - set(WNIDS)):
        raise UserError(f"{path} holds {unknown[0]}, which is not one of ImageNet's 1,000 classes; {SET_PATH}")
    if not subset and (len(present) < len(WNIDS) or len(names) != IMAGES):
        absent = [wnid for wnid in WNIDS if wnid not in present]
        first = f" ({absent[0]} is missing{f', and {len(absent) - 1} more' if absent[1:] else ''})" if absent else ""
        raise UserError(
            f"{path} holds {len(names):,} images of {len(present):,} classes instead of ImageNet's {IMAGES:,} of "
            f"{len(WNIDS):,}{first}; complete it, or set subset: true to use only a part"
        )
    return len(present)


# ---------------------------------------------------------------------------------------------- shard stage


class ImageNet:
    """The images that the download stage listed. Raises :class:`UserError` for a damaged listing or a missing tar."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        self._entries = listing.read(archive, record)
        self._path = Path(record["path"])
        self._content = FORMS[record["form"]](self._path, archive, self._entries)
        self.class_names = WNIDS
        self.labels = [NUMBERS[wnid_of(entry[0])] for entry in self._entries]

    def image(self, i: int) -> Image.Image:
        # Decode like ADM, with whose statistics scores are compared. ADM ignores the EXIF orientation that some images
        # have, and drops the transparency of PNG files that are named like JPEG files.
        return images.decode(self._content.read(i), self.name(i), as_stored=True)

    def name(self, i: int) -> str:
        return f"{self._path}/{self._entries[i][0]}"


class Folders:
    """Class folders. An entry of the listing is ``[wnid/file, bytes]``; entries are sorted by wnid and file."""

    def __init__(self, path: Path, archive: Path, entries: list):
        self._path, self._entries = path, entries

    @staticmethod
    def listing(path: Path, out: Path, spec: dict) -> list:
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        return [
            [f"{folder.name}/{file.name}", file.stat().st_size]
            for folder in progress(folders, desc="list", unit="class")
            for file in sorted(folder.iterdir())
            if listing.is_image(file.name)
        ]

    def read(self, i: int) -> bytes:
        name, size = self._entries[i]
        return listing.content(self._path / name, size)


class Tar:
    """The tar of tars. Its listing equals that of class folders; ``offsets.npy`` holds where each file starts."""

    def __init__(self, path: Path, archive: Path, entries: list):
        self._path, self._entries = path, entries
        try:
            self._offsets = np.load(archive / "offsets.npy")
            self._file = path.open("rb")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing, although it was listed; {listing.AGAIN}") from None

    @staticmethod
    def listing(path: Path, out: Path, spec: dict) -> list:
        with path.open("rb") as file, _bar(path) as bar:
            hashed = _HashedFile(file, bar)
            try:
                found = sorted(_members(hashed), key=itemgetter(0))
            except tarfile.TarError as error:
                raise UserError(f"{path} is not a complete {TAR} ({error}); {GET_AGAIN}") from error
            while hashed.read(CHUNK):
                pass
        md5, expected = hashed.md5.hexdigest(), spec["md5"] or MD5
        if md5 != expected:
            raise UserError(f"{path} has the md5 {md5} instead of {expected}; {GET_AGAIN}")
        with files.atomic(out / "offsets.npy") as temporary, temporary.open("wb") as target:
            np.save(target, np.array([offset for _, _, offset in found], np.int64))
        return [[f"{wnid}/{name}", size] for (wnid, name), size, _ in found]

    def read(self, i: int) -> bytes:
        name, size = self._entries[i]
        self._file.seek(int(self._offsets[i]) - tarfile.BLOCKSIZE)
        header, data = self._file.read(tarfile.BLOCKSIZE), self._file.read(size)
        if _header(header) != (PurePosixPath(name).name, size) or len(data) != size:
            raise UserError(f"{self._path} has changed since it was listed; {listing.AGAIN}")
        return data


class _HashedFile:
    """A file that is read sequentially; all bytes read are hashed and advance the progress bar."""

    def __init__(self, file: BinaryIO, bar: tqdm):
        self._file, self._bar = file, bar
        self.md5 = hashlib.md5(usedforsecurity=False)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.md5.update(data)
        self._bar.update(len(data))
        return data


def _bar(path: Path) -> tqdm:
    return progress(total=path.stat().st_size, desc=f"md5 of {path.name}", unit="B", unit_scale=True)


def _members(outer_file: _HashedFile) -> Iterator[tuple[tuple[str, str], int, int]]:
    """Yield (wnid, name), bytes and offset in the outer file of every image, reading the tar sequentially."""
    with tarfile.open(fileobj=outer_file, mode="r|", bufsize=CHUNK) as outer:
        for folder in filter(tarfile.TarInfo.isfile, outer):
            wnid = PurePosixPath(folder.name).stem
            with tarfile.open(fileobj=outer.extractfile(folder), mode="r|", bufsize=CHUNK) as inner:
                for image in filter(tarfile.TarInfo.isfile, inner):
                    name = PurePosixPath(image.name).name
                    if listing.is_image(name):
                        yield (wnid, name), image.size, folder.offset_data + image.offset_data


def _header(block: bytes) -> tuple[str, int] | None:
    """File name and size in a tar header, None if the block is not a header."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return PurePosixPath(member.name).name, member.size


# The reader of each form: ``listing(path, out, spec)`` lists the images at a path, ``read(i)`` returns file i.
FORMS = {"tar": Tar, "folders": Folders, "parquet": imagenet_parquet.Parquet}

open_images = ImageNet
