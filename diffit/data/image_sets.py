"""What can be measured: a shard of the workflow, and of a user's own a folder of pictures, a tar or an npz file."""

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
from diffit.store.manifest import read_manifest, read_shard_images

Sample = tuple[str, np.ndarray, int]  # key, uint8 [H, W, 3], label
IMAGES, LABELS = "arr_0", "arr_1"  # in an npz file of ADM


@dataclass(frozen=True)
class Source:
    """Images in a fixed order, and what they are."""

    samples: Iterable[Sample]
    facts: dict  # of the whole set: dataset, count, content_sha256, …
    count: int
    sha256: str  # of these images
    features: str  # the name of the file with their features


def read(path: Path) -> Source:
    """The images at ``path``; they are decoded when they are asked for.

    A tar with a manifest beside it is a shard of the workflow and verified. Any other tar and a folder give their
    pictures, subfolders included, in the order of their paths, under label 0. An npz file gives ``arr_0``, uint8
    [n, H, W, 3], and the labels ``arr_1`` where it has them. Raises :class:`UserError` for anything else.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".npz":
        return _npz(path)
    if (path.parent / "manifest.json").exists():
        return _shard(path)
    return _tar(path)


def _shard(path: Path) -> Source:
    manifest = read_manifest(path.parent)
    entry = next((shard for shard in manifest["shards"] if shard["file"] == path.name), None)
    if entry is None:
        raise UserError(f"{path} is not in the manifest beside it; gather the folder again or correct the name")
    facts = {name: value for name, value in manifest.items() if name not in ("shards", "class_names")}
    samples = read_shard_images(path, entry)
    return Source(samples, facts, entry["count"], entry["sha256"], f"{path.stem}.npz")


def _folder(folder: Path) -> Source:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.EXTENSIONS)
    if not paths:
        raise UserError(f"{folder} holds no pictures; give a folder of pictures, an image tar or an npz file")
    names = [path.relative_to(folder).as_posix() for path in paths]
    sha256 = files.sha256_of([[name, files.sha256(path)] for name, path in zip(names, paths, strict=True)])
    samples = ((name, np.asarray(images.decode(path, str(path))), 0) for name, path in zip(names, paths, strict=True))
    return _own(folder, samples, len(paths), sha256)


def _tar(path: Path) -> Source:
    with _opened(path), tarfile.open(path) as tar:
        names = sorted(m.name for m in tar if m.isfile() and Path(m.name).suffix.lower() in images.EXTENSIONS)
    if not names:
        raise UserError(f"{path} holds no pictures, and no manifest.json lies beside it; give one with pictures")

    def samples() -> Iterator[Sample]:
        with _opened(path), tarfile.open(path) as tar:
            for name in names:
                yield name, np.asarray(images.decode(tar.extractfile(name).read(), f"{name} in {path}")), 0

    return _own(path, samples(), len(names), files.sha256(path))


def _npz(path: Path) -> Source:
    with _opened(path), zipfile.ZipFile(path) as archive:
        if f"{IMAGES}.npy" not in archive.namelist():
            raise UserError(f"{path} holds no {IMAGES}; give an npz file whose {IMAGES} are images, as ADM's are")
        with archive.open(f"{IMAGES}.npy") as member:
            shape, columns_first, dtype = _header(member)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or columns_first:
            raise UserError(f"{path} holds {dtype} {list(shape)} as {IMAGES}; give uint8 [n, height, width, 3]")
    with _opened(path), np.load(path, allow_pickle=False) as stored:
        labels = stored[LABELS] if LABELS in stored else np.zeros(shape[0], np.int64)
    if labels.shape != shape[:1]:
        raise UserError(f"{path} holds {len(labels)} labels for {shape[0]} images; correct {LABELS} or leave it out")

    def samples() -> Iterator[Sample]:  # one image at a time: 50,000 of 256×256 are 10 GB
        with _opened(path), zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES}.npy") as member:
            _header(member)
            for number, label in enumerate(labels):
                pixels = np.frombuffer(member.read(int(np.prod(shape[1:]))), np.uint8)
                yield f"{number:08d}", pixels.reshape(shape[1:]), int(label)

    return _own(path, samples(), shape[0], files.sha256(path))


def _header(member: zipfile.ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, column order and element type of an ``.npy`` member; what follows are its elements."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _own(path: Path, samples: Iterable[Sample], count: int, sha256: str) -> Source:
    """A user's own set, which is one shard."""
    facts = {"dataset": path.absolute().name, "count": count, "content_sha256": sha256}
    return Source(samples, facts, count, sha256, "0-of-1.npz")


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    """Turn what a missing or damaged file raises into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; correct the name, or make it") from None
    except UserError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise UserError(f"{path} is damaged or of another kind ({reason}); give it anew") from error
