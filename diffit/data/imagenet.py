"""ImageNet's training set (ILSVRC2012) in the forms in which people have it, none of them unpacked.

    path: …/ILSVRC2012_img_train.tar   a tar of 1,000 tars of JPEG files; shards read it by offset, any number at once
    path: …/train                      its class folders, or the folder above
    path: null                         the parquet files of a Hugging Face data set; a folder of them may be named too

Classes are numbered among all 1,000, also where pictures of some are absent. Tar and folders give the same pictures,
by wnid and name, and so the same bytes of every shard; parquet files keep their own order.
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
MD5 = "1d675b47d978889d74fa0da5fadfb00e"  # of the tar, as image-net.org states it
CHUNK = 1 << 20

ANOTHER = "get it again from image-net.org, or set md5: to that of the tar that you mean"
WAYS = f"name {TAR} there, the folder of its class folders or one of parquet files, or set path: null to download"


# -------------------------------------------------------------------------------------------------- at download


def origin(spec: dict) -> Hub:
    """Where the Parquet files are downloaded from."""
    return Hub(imagenet_parquet.REPOSITORY, spec["revision"], "dataset")


def fetch(spec: dict, out: Path) -> dict:
    """List the pictures of ImageNet under ``path``, or download it first; returns what ``archive.json`` says of it.

    Raises :class:`UserError` for a tar with another md5, for pictures outside the 1,000 classes or with another class's
    label, and, without ``subset``, for anything but the whole training set.
    """
    path = Path(spec["path"]).expanduser().absolute() if spec["path"] else None
    form = form_of(path) if path else "parquet"
    if spec["md5"] and form != "tar":
        raise UserError(f"md5: is that of ImageNet's tar, which path: {spec['path']} does not name; remove the key")
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
    """What a path names: ``tar``, ``folders`` or ``parquet``."""
    if path.is_file():
        return "tar"
    if not path.is_dir():
        raise UserError(f"path: {path} is neither a file nor a folder here; {WAYS}")
    return "parquet" if imagenet_parquet.paths(path) else "folders"


def _check(path: Path, names: list[str], subset: bool) -> int:
    """The number of classes there are pictures of; refuses pictures of other classes, and less than all of ImageNet."""
    present = {wnid_of(name) for name in names}
    if not present:
        raise UserError(f"{path} holds no pictures of ImageNet; {WAYS}")
    if strange := sorted(present - set(WNIDS)):
        raise UserError(f"{path} holds {strange[0]}, which is none of ImageNet's 1,000 classes; {WAYS}")
    if not subset and (len(present) < len(WNIDS) or len(names) != IMAGES):
        absent = [wnid for wnid in WNIDS if wnid not in present]
        first = f" ({absent[0]} is missing{f', and {len(absent) - 1} more' if absent[1:] else ''})" if absent else ""
        raise UserError(
            f"{path} holds {len(names):,} pictures of {len(present):,} classes instead of ImageNet's {IMAGES:,} of "
            f"{len(WNIDS):,}{first}; complete it, or set subset: true if a part is meant"
        )
    return len(present)


# ------------------------------------------------------------------------------------------------------ at shard


class ImageNet:
    """The pictures that ``download`` listed; their classes are numbered among all 1,000."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        self._entries = listing.read(archive, record)
        self._path = Path(record["path"])
        self._pictures = FORMS[record["form"]](self._path, archive, self._entries)
        self.class_names = WNIDS
        self.labels = [NUMBERS[wnid_of(entry[0])] for entry in self._entries]

    def image(self, i: int) -> Image.Image:
        # As ADM decodes them, whose statistics ours are compared with. It ignores the EXIF orientation that some ask
        # for, and drops the transparency that a PNG under a JPEG's name may have; CMYK is the same either way.
        return images.decode(self._pictures.read(i), self.name(i), as_stored=True)

    def name(self, i: int) -> str:
        return f"{self._path}/{self._entries[i][0]}"


class Folders:
    """Class folders. An entry of the listing is ``[wnid/file, bytes]``, in order of wnid and file."""

    def __init__(self, path: Path, archive: Path, entries: list):
        self._path, self._entries = path, entries

    @staticmethod
    def listing(path: Path, out: Path, spec: dict) -> list:
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        return [
            [f"{folder.name}/{picture.name}", picture.stat().st_size]
            for folder in progress(folders, desc="list", unit="class")
            for picture in sorted(folder.iterdir())
            if listing.is_picture(picture.name)
        ]

    def read(self, i: int) -> bytes:
        name, size = self._entries[i]
        return listing.content(self._path / name, size)


class Tar:
    """The tar of tars. Its listing is that of the folders; ``offsets.npy`` says where each picture's bytes begin."""

    def __init__(self, path: Path, archive: Path, entries: list):
        self._path, self._entries = path, entries
        try:
            self._offsets = np.load(archive / "offsets.npy")
            self._file = path.open("rb")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} has vanished since it was listed; {listing.AGAIN}") from None

    @staticmethod
    def listing(path: Path, out: Path, spec: dict) -> list:
        with path.open("rb") as file, _bar(path) as bar:
            passing = _Passing(file, bar)
            try:
                found = sorted(_members(passing), key=itemgetter(0))
            except tarfile.TarError as error:
                raise UserError(f"{path} is no whole {TAR} ({error}); {ANOTHER}") from error
            while passing.read(CHUNK):
                pass
        md5, expected = passing.md5.hexdigest(), spec["md5"] or MD5
        if md5 != expected:
            raise UserError(f"{path} has the md5 {md5} instead of {expected}; {ANOTHER}")
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


class _Passing:
    """A file that is read once from front to end: what passes is hashed and moves the bar."""

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


def _members(outer_file: _Passing) -> Iterator[tuple[tuple[str, str], int, int]]:
    """Wnid and name, bytes, and offset in the outer file of every picture, as the tars pass by."""
    with tarfile.open(fileobj=outer_file, mode="r|", bufsize=CHUNK) as outer:
        for folder in filter(tarfile.TarInfo.isfile, outer):
            wnid = PurePosixPath(folder.name).stem
            with tarfile.open(fileobj=outer.extractfile(folder), mode="r|", bufsize=CHUNK) as inner:
                for picture in filter(tarfile.TarInfo.isfile, inner):
                    name = PurePosixPath(picture.name).name
                    if listing.is_picture(name):
                        yield (wnid, name), picture.size, folder.offset_data + picture.offset_data


def _header(block: bytes) -> tuple[str, int] | None:
    """Name and bytes of the member whose header this is, if it is one."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return PurePosixPath(member.name).name, member.size


FORMS = {"tar": Tar, "folders": Folders, "parquet": imagenet_parquet.Parquet}

open_images = ImageNet
