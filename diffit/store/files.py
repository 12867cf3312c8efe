"""Atomic writes (temporary file, fsync, rename) and sealed files, whose sidecar holds their sha256."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffit.cli import WRITE_ERRORS, UserError
from diffit.slurm.environment import accounting_id

# The last part of error messages about a damaged shard.
REMAKE_SHARD = (
    "delete it and the folder's manifest.json, then run the same command again: its rule makes the shard again"
)


def write_error(error: BaseException | None) -> OSError | None:
    """The first ``OSError`` for a full disk or missing permission in the chain of an exception, None if there is none.

    Libraries may wrap such an error in exceptions of their own.
    """
    while error and not (isinstance(error, OSError) and error.errno in WRITE_ERRORS):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success flush it to disk and rename it to ``path``.

    Readers see the old file or the complete new one. On any exception ``path`` stays and the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        if cause := write_error(error):  # its filename is not the one that the user knows
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    return digest(path, "sha256")


def digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file by an algorithm of hashlib."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def sha256_of(value: object) -> str:
    """Hex sha256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: object) -> str:
    """The canonical JSON text of a value: sorted keys, no spaces. Equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def user_file(
    path: str, key: str = "path", remedy: str = "correct the key in the config or put the file there"
) -> Path:
    """The file that a key of the configuration names.

    Raises :class:`UserError`, ending with ``remedy``, if it does not exist.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise UserError(f"{key}: '{path}' does not exist or is not a file; {remedy}")
    return found


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder in ``out`` for unfinished work and remove it at the end.

    A folder that a killed process left is emptied first.
    """
    scratch = out / ".partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def modified(folder: Path) -> int:
    """Time of the last addition or removal of a file in a folder or its immediate subfolders, in ns since 1970."""
    return max(path.stat().st_mtime_ns for path in [folder, *(path for path in folder.iterdir() if path.is_dir())])


def write_json(path: Path, value: object) -> None:
    """Write an indented JSON file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON object. Raises :class:`UserError`, ending with ``remedy``, if the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged (not JSON); {remedy}") from None


def sidecar(path: Path) -> Path:
    """The sidecar of ``path``: that of ``3-of-64.tar`` is ``3-of-64.json`` in the same folder."""
    return path.with_suffix(".json")


def seal(path: Path, written: Path | None = None, digest: str | None = None, **facts: object) -> dict:
    """Write the sidecar of a finished file (name, sha256, bytes, ``facts``, SLURM job) and return its content.

    Args:
        path: the file.
        written: the temporary file that will be renamed to ``path``. The sidecar then exists before the file, so that
            a file without a sidecar never exists.
        digest: the sha256, if it is already known.
        facts: further JSON values.
    """
    content = written or path
    sealed = {"file": path.name, "sha256": digest or sha256(content), "bytes": content.stat().st_size}
    record = {**sealed, **facts, "job": accounting_id()}
    write_json(sidecar(path), record)
    return record


def verify(path: Path, remedy: str = "delete it and run the same command again") -> dict:
    """Check a sealed file against its sidecar and return the sidecar.

    Raises :class:`UserError`, ending with ``remedy``, if either is missing or if size or sha256 differ.
    """
    record = read_json(sidecar(path), remedy)
    if not path.is_file():
        raise UserError(f"{path} is missing although {sidecar(path).name} describes it; {remedy}")
    if path.stat().st_size != record["bytes"]:
        raise UserError(f"{path} has {path.stat().st_size} bytes instead of {record['bytes']}; {remedy}")
    if sha256(path) != record["sha256"]:
        raise UserError(f"{path} is damaged: its sha256 is not that of {sidecar(path).name}; {remedy}")
    return record
