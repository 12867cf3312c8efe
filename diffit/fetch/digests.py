"""Hashes of files, written as ``md5:…``, ``sha1:…``, ``sha256:…`` or ``git:…`` (git's hash of a blob)."""

import hashlib
from pathlib import Path

from diffit.store import files

CHUNK = 1 << 20


def mismatch(path: Path, digest: str) -> str | None:
    """What is wrong with the hash of a file, None if it is the expected one."""
    algorithm, _, expected = digest.partition(":")
    found = digest_of(path, algorithm)
    what = "git hash" if algorithm == "git" else algorithm
    return None if found == expected else f"its {what} is {found} instead of {expected}"


def digest_of(path: Path, algorithm: str) -> str:
    """The hex digest of a file; ``git`` is git's hash of a blob."""
    if algorithm != "git":
        return files.digest(path, algorithm)
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()
