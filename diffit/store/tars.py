"""Numbered tars, the one format that flows through the workflow, and the only door to webdataset.

A folder holds shards ``0-of-4.tar`` … ``3-of-4.tar``, each with a sidecar ``.json`` (sha256, bytes, count,
facts) and an index ``.index.npz`` (where each member lies in the tar), and one ``manifest.json`` over all of
them.

    python -m diffit.store.tars FOLDER --shards N      writes the manifest

WebDataset itself loses samples in silence: a tar cut at a member's boundary just ends, a damaged header drops
the rest, a dot in a key merges two samples, and its automatic decoder runs pickles. So here a shard is hashed
before it is read and counted after, keys are checked when they are written, and members are decoded by a
short list of known extensions.
"""

import io
import os
import re
import reprlib
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from diffit.cli import Parser, UserError, run
from diffit.store import files

os.environ["WDS_SECURE"] = "1"  # read when webdataset is imported: refuses pickles and shell pipes
from webdataset.tariterators import group_by_keys, tar_file_expander

ANEW = "delete it and the folder's manifest.json and run the same command again: its rule makes it anew"

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*")  # no dots, no slashes, and no "__…__", which webdataset skips
_SHARD = re.compile(r"(\d+)-of-(\d+)")
_NPY_HEADER = 10  # bytes of magic, version and length in front of an .npy header
_OF_ONE_SHARD = ("file", "sha256", "bytes", "count")
_OF_ONE_JOB = ("made_by", "job")


def shard_number(path: Path) -> tuple[int, int]:
    """Read ``k`` and ``n`` off a name like ``3-of-64.tar``; :class:`UserError` for any other name."""
    match = _SHARD.fullmatch(path.name.split(".")[0])
    if not match or not int(match[1]) < int(match[2]):
        raise UserError(f"{path} is no shard: name it K-of-N{path.suffix} with K from 0 to N-1, as in 0-of-4")
    return int(match[1]), int(match[2])


# --------------------------------------------------------------------------------------------------- writing


def write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]], **facts: object) -> dict:
    """Write samples ``(key, {extension: bytes})`` as an uncompressed tar with its index and its sidecar.

    Equal samples give equal bytes: members have a fixed time, owner and mode. The tar appears atomically and
    the sidecar last, so a shard that lacks one is unfinished. Returns the sidecar: ``facts`` plus file,
    sha256, bytes and count.
    """
    seen, layout = set(), []
    with files.atomic(path) as temporary, temporary.open("wb") as file:
        for key, members in samples:
            assert _KEY.fullmatch(key), f"{key!r} cannot be a key"
            assert key not in seen, f"two samples have the key {key}"
            assert members and members.keys() <= _DECODERS.keys(), f"{key}: {sorted(members)}"
            seen.add(key)
            for extension in sorted(members):
                layout.append((key, extension, file.tell() + tarfile.BLOCKSIZE, len(members[extension])))
                _write_member(file, f"{key}.{extension}", members[extension])
        end = 2 * tarfile.BLOCKSIZE
        file.write(bytes(end + -(file.tell() + end) % tarfile.RECORDSIZE))
    digest = files.sha256(path)
    _write_index(path, _index(layout), digest)
    return files.seal(path, digest=digest, count=len(seen), **facts)


def _write_member(file: BinaryIO, name: str, data: bytes) -> None:
    """Header block and padded content, the bytes of tarfile's ``addfile`` at a third of its time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o444  # time and owner stay 0
    file.write(member.tobuf(tarfile.USTAR_FORMAT))
    file.write(data)
    file.write(bytes(-len(data) % tarfile.BLOCKSIZE))


# --------------------------------------------------------------------------------------------------- reading


def read_tar(path: Path, expected: dict | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(key, {extension: value})`` of a verified shard in the order in which it was written.

    Values are decoded by extension: ``png`` to uint8 [H, W, 3], ``npy`` to its array, ``cls`` to int. With
    ``expected``, the shard's entry in a manifest, the tar must also be the one that the manifest was made of.
    Raises :class:`UserError` when the shard is missing, damaged or short, or holds anything else.
    """
    record = verify_shard(path, expected)
    count = 0
    try:
        with path.open("rb") as file:
            # An open file instead of an address: webdataset expands braces and runs "pipe:" in addresses.
            for sample in group_by_keys(tar_file_expander([{"url": path.name, "stream": file}])):
                key = sample["__key__"]
                yield (
                    key,
                    {e: _decode(path, key, e, data) for e, data in sample.items() if not e.startswith("__")},
                )
                count += 1
    except tarfile.TarError as error:
        raise UserError(f"{path} is not a readable tar ({error.args[0]}); {ANEW}") from error
    if count != record["count"]:
        raise UserError(f"{path} holds {count} samples instead of {record['count']}; {ANEW}")


def verify_shard(path: Path, expected: dict | None = None) -> dict:
    """Check a shard against its sidecar and, where given, its entry in a manifest; return the sidecar.

    Raises :class:`UserError` when it is missing, damaged or another one.
    """
    record = files.verify(path, ANEW)
    if expected and record["sha256"] != expected["sha256"]:
        raise UserError(f"{path} is not the shard that manifest.json names (another sha256); {ANEW}")
    return record


def _decode(path: Path, key: str, extension: str, data: bytes) -> Any:
    if extension not in _DECODERS:
        known = ", ".join(_DECODERS)
        raise UserError(f"{path} holds {key}.{extension}, which is none of {known}; {ANEW}")
    try:
        return _DECODERS[extension](data)
    except (
        ValueError,
        OSError,
        EOFError,
        SyntaxError,
    ) as error:  # what PIL and NumPy raise for damaged bytes
        raise UserError(f"{path} holds {key}.{extension}, which does not decode ({error}); {ANEW}") from error


def _png(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.mode != "RGB":
            raise ValueError(f"mode {image.mode} instead of RGB")
        return np.array(image)


def _npy(data: bytes) -> np.ndarray:
    """What ``np.load`` gives, without pickles and ten times as fast where many members have one header."""
    dtype, fortran, shape, start = _npy_header(data[: _NPY_HEADER + int.from_bytes(data[8:_NPY_HEADER], "little")])
    array = np.frombuffer(data, dtype, offset=start)
    return array.reshape(shape, order="F" if fortran else "C")


@cache
def _npy_header(header: bytes) -> tuple[np.dtype, bool, tuple[int, ...], int]:
    """Element type, column order, shape and length of an ``.npy`` header of version 1."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an .npy array of version 1")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("an .npy array of objects")
    return dtype, fortran, shape, file.tell()


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "png": _png,
    "npy": _npy,
    "cls": int,
}


# ----------------------------------------------------------------------------------------------------- index


@dataclass(frozen=True)
class Index:
    """Where the members of a tar lie, one row a member, so that they can be mapped into memory."""

    keys: np.ndarray  # str [members]
    extensions: np.ndarray  # str [members], without the dot
    offsets: np.ndarray  # int64 [members], of the member's first byte
    sizes: np.ndarray  # int64 [members], bytes


def read_index(path: Path) -> Index:
    """The index of a sealed tar, made anew where it is missing, damaged, or that of another tar.

    Trusts the sidecar's sha256 without hashing the tar: whoever maps members verifies the shard first.
    """
    sha256 = files.read_json(files.sidecar(path), ANEW)["sha256"]
    try:
        with np.load(index_path(path), allow_pickle=False) as stored:
            if str(stored["sha256"]) == sha256:
                return Index(**{name: stored[name] for name in Index.__annotations__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    index = _scan(path)
    _write_index(path, index, sha256)
    return index


def _scan(path: Path) -> Index:
    """Walk through the headers of a tar, skipping the content."""
    with tarfile.open(path, "r:") as tar:
        members = [(*member.name.split(".", 1), member.offset_data, member.size) for member in tar]
    return _index(members)


def _index(members: list[tuple[str, str, int, int]]) -> Index:
    keys, extensions, offsets, sizes = zip(*members, strict=True) if members else ((), (), (), ())
    return Index(np.array(keys, str), np.array(extensions, str), np.array(offsets, np.int64), np.array(sizes, np.int64))


def _write_index(path: Path, index: Index, sha256: str) -> None:
    with files.atomic(index_path(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, sha256=sha256, **asdict(index))


def index_path(path: Path) -> Path:
    """Where the index of a tar stands: beside it."""
    return path.with_suffix(".index.npz")


# -------------------------------------------------------------------------------------------------- manifest


def gather(folder: Path, shards: int) -> dict:
    """Write ``folder/manifest.json`` over the sealed shards ``0-of-n`` … ``n-1-of-n`` and return it.

    The facts that the sidecars share enter it. What belongs to one job (``made_by``, SLURM's job id) does
    not, so that the same data give the same bytes. Sizes are compared here, hashes by whoever reads a shard.
    Raises :class:`UserError` for a missing shard and for shards whose facts disagree.
    """
    if shards < 1:
        raise UserError(f"{folder} cannot have {shards} shards; name a number from 1 on")
    records = [_sidecar(folder / f"{k}-of-{shards}.json") for k in range(shards)]
    facts = _common_facts(folder, records)
    manifest = {
        "count": sum(record["count"] for record in records),
        "content_sha256": files.sha256_of({"shards": [record["sha256"] for record in records], **facts}),
        **facts,
        "shards": [{name: record[name] for name in _OF_ONE_SHARD} for record in records],
    }
    files.write_json(folder / "manifest.json", manifest)
    return manifest


def _sidecar(path: Path) -> dict:
    record = files.read_json(path, "run the same command again: its rule makes the missing shard")
    shard = path.with_name(record["file"])
    if not shard.is_file():
        raise UserError(f"{shard} is missing although {path.name} describes it; {ANEW}")
    if shard.stat().st_size != record["bytes"]:
        raise UserError(f"{shard} has {shard.stat().st_size} bytes instead of {record['bytes']}; {ANEW}")
    return record


def _common_facts(folder: Path, records: list[dict]) -> dict:
    facts = [{name: r[name] for name in r if name not in _OF_ONE_SHARD + _OF_ONE_JOB} for r in records]
    for record, other in zip(records, facts, strict=True):
        for name in sorted(facts[0].keys() | other.keys()):
            one, two = facts[0].get(name), other.get(name)
            if one != two:
                raise UserError(
                    f"the shards of {folder} disagree: {name} is {reprlib.repr(one)} in {records[0]['file']} "
                    f"and {reprlib.repr(two)} in {record['file']}; delete the folder and run the command again"
                )
    return facts[0]


def read_manifest(folder: Path) -> dict:
    """The manifest of a folder: count, content_sha256, shards, and the facts that its shards share."""
    return files.read_json(
        folder / "manifest.json", f"write it with: python -m diffit.store.tars '{folder}' --shards N"
    )


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder in order, as its manifest names them."""
    return [folder / shard["file"] for shard in read_manifest(folder)["shards"]]


def read_images(folder: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield key, image and label of a whole folder, in order.

    The image is uint8 [H, W, 3], from ``.png`` or ``.npy``; the label is 0 where there is none. Each shard is
    verified against the manifest before its first image is yielded.
    """
    for shard in read_manifest(folder)["shards"]:
        yield from read_shard_images(folder / shard["file"], shard)


def read_shard_images(path: Path, expected: dict) -> Iterator[tuple[str, np.ndarray, int]]:
    """The images of one shard as :func:`read_images` yields them; ``expected`` is its entry in the manifest."""
    for key, sample in read_tar(path, expected):
        image = sample.get("png", sample.get("npy"))
        if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"{path} holds no uint8 RGB image under the key {key}; {ANEW}")
        yield key, image, sample.get("cls", 0)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, required=True)
    arguments = parser.parse_args()
    gather(arguments.folder, arguments.shards)


if __name__ == "__main__":
    run(main)
