"""Listings: which pictures an archive has, one JSON array a line, beginning with the picture's name.

The sha256 of ``listing.jsonl`` is that of the archive, so that pictures which stay where they are have an identity.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from diffit.cli import UserError
from diffit.data.images import EXTENSIONS
from diffit.store import files

AGAIN = "run the download stage again: snakemake --forcerun download"

_NAME = "listing.jsonl"


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture: a known ending, and not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def write(archive: Path, entries: Iterable) -> str:
    """Write the listing of an archive, an entry a line; returns its sha256."""
    with files.atomic(archive / _NAME) as temporary, temporary.open("w") as file:
        file.writelines(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
    return files.sha256(archive / _NAME)


def read(archive: Path, record: dict) -> list[list]:
    """The entries of an archive; :class:`UserError` where they are not those that its ``archive.json`` names."""
    listing = archive / _NAME
    if not listing.is_file() or files.sha256(listing) != record["sha256"]:
        raise UserError(f"{listing} is missing or not the one that archive.json names; {AGAIN}")
    return [json.loads(line) for line in listing.read_text().splitlines()]


def content(path: Path, size: int) -> bytes:
    """The content of a listed file; :class:`UserError` where it is gone or has another size."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} has vanished since it was listed; {AGAIN}") from None
    if len(data) != size:
        raise UserError(f"{path} has {len(data)} bytes instead of the {size} that were listed; {AGAIN}")
    return data
