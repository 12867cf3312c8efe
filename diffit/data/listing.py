"""Listings: the file ``listing.jsonl`` of an archive with one JSON array per image, which starts with the image's name.

The sha256 of the listing is the sha256 of the archive. It identifies images that are not copied into the archive.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from diffit.cli import UserError
from diffit.data.images import EXTENSIONS
from diffit.store import files

AGAIN = "run the download stage again: snakemake --forcerun download"

_NAME = "listing.jsonl"


def is_image(name: str) -> bool:
    """Whether a file name is that of an image: a known extension, and not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def write(archive: Path, entries: Iterable) -> str:
    """Write the listing of an archive, one entry per line, and return its sha256."""
    with files.atomic(archive / _NAME) as temporary, temporary.open("w") as file:
        file.writelines(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
    return files.sha256(archive / _NAME)


def read(archive: Path, record: dict) -> list[list]:
    """The entries of an archive. Raises :class:`UserError` if ``archive.json`` records another sha256."""
    listing = archive / _NAME
    if not listing.is_file() or files.sha256(listing) != record["sha256"]:
        raise UserError(f"{listing} is missing, or archive.json records another sha256; {AGAIN}")
    return [json.loads(line) for line in listing.read_text().splitlines()]


def content(path: Path, size: int) -> bytes:
    """The content of a listed file. Raises :class:`UserError` if it is missing or its size changed."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing, although it was listed; {AGAIN}") from None
    if len(data) != size:
        raise UserError(f"{path} has {len(data)} bytes instead of the listed {size}; {AGAIN}")
    return data
