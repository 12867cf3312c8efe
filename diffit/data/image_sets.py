"""Sets of images that can be measured: a shard of the workflow, or the user's own folder, tar or npz file."""

import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffit.cli import UserError
from diffit.data import images
from diffit.store import files
from diffit.store.adm_npz import IMAGES, LABELS
from diffit.store.manifest import has_manifest, read_shard_images, shard_entry

Sample = tuple[str, np.ndarray, int]  # key, uint8 [H, W, 3], label


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order.

    Args:
        samples: the images, decoded while they are iterated over; once only.
        facts: facts about the whole set: dataset, count, content_sha256 and others. A shard is a part of its set.
        count: number of images.
        sha256: sha256 of the file with the images, or of names and hashes of a folder's files.
        features_name: name of the file for their features.
    """

    samples: Iterable[Sample]
    facts: dict
    count: int
    sha256: str
    features_name: str


def read(path: Path) -> ImageSet:
    """The images at ``path``.

    - A tar in a folder with a manifest is a shard of the workflow. It is verified.
    - A folder or another tar: all images, subfolders included, in order of their paths, with label 0.
    - An npz file: ``arr_0``, uint8 [n, H, W, 3], and labels from ``arr_1``, 0 without it.

    Raises :class:`UserError` for anything else.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".npz":
        return _npz(path)
    if has_manifest(path.parent):
        return _shard(path)
    return _tar(path)


def _shard(path: Path) -> ImageSet:
    manifest, entry = shard_entry(path)
    facts = {name: value for name, value in manifest.items() if name not in ("shards", "class_names")}
    return ImageSet(read_shard_images(path, entry), facts, entry["count"], entry["sha256"], f"{path.stem}.npz")


def _folder(folder: Path) -> ImageSet:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.EXTENSIONS)
    if not paths:
        raise UserError(f"{folder} holds no images; give a folder of images, a tar of images or an npz file")
    names = [path.relative_to(folder).as_posix() for path in paths]
    sha256 = files.sha256_of([[name, files.sha256(path)] for name, path in zip(names, paths, strict=True)])
    samples = ((name, np.asarray(images.decode(path, str(path))), 0) for name, path in zip(names, paths, strict=True))
    return _user_set(folder, samples, len(paths), sha256)


def _tar(path: Path) -> ImageSet:
    with _opened(path), tarfile.open(path) as tar:
        names = sorted(m.name for m in tar if m.isfile() and Path(m.name).suffix.lower() in images.EXTENSIONS)
    if not names:
        raise UserError(f"{path} holds no images, and its folder has no manifest.json; give a tar of images")

    def samples() -> Iterator[Sample]:
        with _opened(path), tarfile.open(path) as tar:
            for name in names:
                yield name, np.asarray(images.decode(tar.extractfile(name).read(), f"{name} in {path}")), 0

    return _user_set(path, samples(), len(names), files.sha256(path))


def _npz(path: Path) -> ImageSet:
    with _opened(path), zipfile.ZipFile(path) as archive:
        if f"{IMAGES}.npy" not in archive.namelist():
            raise UserError(f"{path} holds no {IMAGES}; give an npz file whose {IMAGES} are images, like ADM's")
        with archive.open(f"{IMAGES}.npy") as member:
            shape, fortran_order, dtype = _header(member)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or fortran_order:
            raise UserError(f"{path} holds {dtype} {list(shape)} as {IMAGES}; give uint8 [n, height, width, 3]")
    with _opened(path), np.load(path, allow_pickle=False) as stored:
        labels = stored[LABELS] if LABELS in stored else np.zeros(shape[0], np.int64)
    if labels.shape != shape[:1]:
        raise UserError(f"{path} holds {len(labels)} labels for {shape[0]} images; correct or remove {LABELS}")

    def samples() -> Iterator[Sample]:  # reads one image at a time: 50,000 images of 256×256 are 10 GB
        with _opened(path), zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES}.npy") as member:
            _header(member)
            for number, label in enumerate(labels):
                pixels = np.frombuffer(member.read(int(np.prod(shape[1:]))), np.uint8)
                yield f"{number:08d}", pixels.reshape(shape[1:]), int(label)

    return _user_set(path, samples(), shape[0], files.sha256(path))


def _header(member: zipfile.ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, Fortran order and element type of an ``.npy`` member; its elements follow."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _user_set(path: Path, samples: Iterable[Sample], count: int, sha256: str) -> ImageSet:
    """The user's own images, which are a set of one shard."""
    facts = {"dataset": path.absolute().name, "count": count, "content_sha256": sha256}
    return ImageSet(samples, facts, count, sha256, "0-of-1.npz")


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    """Turn exceptions for a missing or damaged file into a :class:`UserError`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; correct the path") from None
    except UserError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise UserError(f"{path} is damaged or of another format ({reason}); replace it") from error
