"""Tars of samples: uncompressed, with equal bytes for equal samples. The only module that imports webdataset.

A tar has a sidecar ``.json`` (sha256, bytes, count, facts) and an index ``.index.npz`` (:mod:`diffit.store.tar_index`).

WebDataset itself loses samples without an error: it stops at the end of a tar that was cut between two members, skips
the rest after a damaged header, merges samples whose keys contain a dot, and its automatic decoder executes pickles.
Therefore a tar is hashed before it is read and its samples are counted afterwards, keys are checked when they are
written, and only members with known extensions are decoded.
"""

import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from diffit.cli import UserError
from diffit.store import files
from diffit.store.files import REMAKE_SHARD
from diffit.store.members import DECODERS
from diffit.store.tar_index import Index, write_index

os.environ["WDS_SECURE"] = "1"  # read when webdataset is imported: refuses pickles and shell pipes
from webdataset.tariterators import group_by_keys, tar_file_expander

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*")  # no dots, no slashes, and no "__…__", which webdataset skips


def write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]], **facts: object) -> dict:
    """Write samples ``(key, {extension: bytes})`` as an uncompressed tar with its index and its sidecar.

    Equal samples give equal bytes: members have a fixed time, owner and mode. The tar is replaced atomically and the
    sidecar is written last, so a tar without a sidecar is unfinished. Returns the sidecar: ``facts`` plus file, sha256,
    bytes and count.
    """
    seen, layout = set(), []
    with files.atomic(path) as temporary, temporary.open("wb") as file:
        for key, members in samples:
            assert _KEY.fullmatch(key), f"{key!r} cannot be a key"
            assert key not in seen, f"two samples have the key {key}"
            assert members and members.keys() <= DECODERS.keys(), f"{key}: {sorted(members)}"
            seen.add(key)
            for extension in sorted(members):
                layout.append((key, extension, file.tell() + tarfile.BLOCKSIZE, len(members[extension])))
                _write_member(file, f"{key}.{extension}", members[extension])
        end = 2 * tarfile.BLOCKSIZE
        file.write(bytes(end + -(file.tell() + end) % tarfile.RECORDSIZE))
    digest = files.sha256(path)
    write_index(path, Index.of(layout), digest)
    return files.seal(path, digest=digest, count=len(seen), **facts)


def _write_member(file: BinaryIO, name: str, data: bytes) -> None:
    """Write the bytes of tarfile's ``addfile`` (header block, padded content) in a third of its time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o444  # time and owner stay 0
    file.write(member.tobuf(tarfile.USTAR_FORMAT))
    file.write(data)
    file.write(bytes(-len(data) % tarfile.BLOCKSIZE))


def read_tar(path: Path, expected: dict | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(key, {extension: value})`` of a verified tar in the order in which it was written.

    Values are decoded by extension: ``png`` to uint8 [H, W, 3], ``npy`` to its array, ``cls`` to int. With
    ``expected``, the tar's entry in a manifest, the tar must also have the sha256 of that entry. Raises
    :class:`UserError` if the tar is missing, damaged or short, or contains unknown or undecodable members.
    """
    record = verify_tar(path, expected)
    count = 0
    try:
        with path.open("rb") as file:
            # An open file instead of a URL: webdataset expands braces and runs "pipe:" commands in URLs.
            for sample in group_by_keys(tar_file_expander([{"url": path.name, "stream": file}])):
                key = sample["__key__"]
                yield key, {e: _decode(path, key, e, data) for e, data in sample.items() if not e.startswith("__")}
                count += 1
    except tarfile.TarError as error:
        raise UserError(f"{path} is not a readable tar ({error.args[0]}); {REMAKE_SHARD}") from error
    if count != record["count"]:
        raise UserError(f"{path} holds {count} samples instead of {record['count']}; {REMAKE_SHARD}")


def verify_tar(path: Path, expected: dict | None = None) -> dict:
    """Check a tar against its sidecar and, if given, its entry in a manifest; return the sidecar.

    Raises :class:`UserError` if the tar is missing or damaged or has another sha256 than the entry.
    """
    record = files.verify(path, REMAKE_SHARD)
    if expected and record["sha256"] != expected["sha256"]:
        raise UserError(f"{path} has another sha256 than its entry in manifest.json; {REMAKE_SHARD}")
    return record


def _decode(path: Path, key: str, extension: str, data: bytes) -> Any:
    if extension not in DECODERS:
        known = ", ".join(DECODERS)
        raise UserError(f"{path} holds {key}.{extension}, whose extension is not one of {known}; {REMAKE_SHARD}")
    try:
        return DECODERS[extension](data)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise UserError(f"{path} holds {key}.{extension}, which cannot be decoded ({error}); {REMAKE_SHARD}") from error
