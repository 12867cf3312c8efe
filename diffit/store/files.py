"""Files that appear atomically and can be verified: temporary name, fsync, rename, and a sha256 beside them."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffit.cli import WRITE_ERRORS, UserError
from diffit.slurm.environment import accounting_id


def write_error(error: BaseException | None) -> OSError | None:
    """The full disk or forbidden folder behind an exception, also where a library turned it into one of its own."""
    while error and not (isinstance(error, OSError) and error.errno in WRITE_ERRORS):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path`` and rename it to ``path`` once it is safely on disk.

    Readers see the old file or the complete new one. On any exception the temporary file goes and ``path`` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        if cause := write_error(error):  # which does not know the file it failed to write
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(value: object) -> str:
    """Hex sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces. Equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def user_file(path: str) -> Path:
    """The file that a key ``path:`` of the configuration names. Raises :class:`UserError` where it is not a file."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise UserError(f"path: {path} is not a file on this machine; put it there or correct the key in the config")
    return found


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """A folder in ``out`` for unfinished work. It is removed at the end, and at the start if a killed process left it."""
    scratch = out / ".partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def modified(folder: Path) -> int:
    """When a file was last added to or removed from a folder or its immediate subfolders, in ns since 1970."""
    return max(path.stat().st_mtime_ns for path in [folder, *(path for path in folder.iterdir() if path.is_dir())])


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically, indented for people."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON object; ``remedy`` ends the error sentence where the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged (not JSON); {remedy}") from None


def sidecar(path: Path) -> Path:
    """Where the facts about ``path`` stand: ``3-of-64.tar`` has ``3-of-64.json`` beside it."""
    return path.with_suffix(".json")


def seal(path: Path, written: Path | None = None, digest: str | None = None, **facts: object) -> dict:
    """Write the sidecar of a finished file: its sha256, its size, ``facts``, its SLURM job. Returns what was written.

    With ``written``, the temporary file that is about to become ``path``: then the sidecar is there first, and
    a file that is there is always a sealed one. With ``digest``, its sha256 where it is known already.
    """
    content = written or path
    sealed = {"file": path.name, "sha256": digest or sha256(content), "bytes": content.stat().st_size}
    record = {**sealed, **facts, "job": accounting_id()}
    write_json(sidecar(path), record)
    return record


def verify(path: Path, remedy: str = "delete it and run the same command again") -> dict:
    """Check a sealed file against its sidecar and return the sidecar.

    Raises :class:`UserError` when either is missing, or when size or sha256 differ.
    """
    record = read_json(sidecar(path), remedy)
    if not path.is_file():
        raise UserError(f"{path} is missing although {sidecar(path).name} describes it; {remedy}")
    if path.stat().st_size != record["bytes"]:
        raise UserError(f"{path} has {path.stat().st_size} bytes instead of {record['bytes']}; {remedy}")
    if sha256(path) != record["sha256"]:
        raise UserError(f"{path} is damaged: its sha256 is not that of {sidecar(path).name}; {remedy}")
    return record
