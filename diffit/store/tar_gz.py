"""Extract a ``.tar.gz`` whose members are known, and nothing else: all are checked before the first one is written."""

import gzip
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO

from diffit.cli import UserError

OVERHEAD = 1 << 20  # headers and padding


def extract(path: Path, folder: Path, members: Mapping[str, int]) -> None:
    """Extract the files ``members`` (bytes by name) into ``folder``.

    Raises :class:`UserError` for an archive with other members, with a member that is not a regular file (folders are
    allowed) or has another size, and for one that inflates to more. Then the archive has been read at most up to the
    member that is wrong, and nothing has been written.
    """
    try:
        found = [_checked(path, member, members) for member in _Reader(path, members) if not member.isdir()]
        if missing := sorted(members.keys() - set(found)):
            raise UserError(f"{path} has no member {missing[0]}; get the archive again")
        reader = _Reader(path, members)
        for member in reader:
            if member.isfile():
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    copyfileobj(reader.content(member), file)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path} is not a complete .tar.gz archive ({error}); get it again") from error


def _checked(path: Path, member: tarfile.TarInfo, members: Mapping[str, int]) -> str:
    if member.name not in members:
        raise UserError(f"{path} has the unexpected member {member.name}; get the archive again")
    if not member.isfile():
        raise UserError(f"{path}: the member {member.name} is not a regular file; get the archive again")
    if member.size != members[member.name]:
        raise UserError(
            f"{path}: the member {member.name} has {member.size:,} bytes instead of {members[member.name]:,}; get the "
            "archive again"
        )
    return member.name


class _Reader:
    """The members of an archive, read once from the front."""

    def __init__(self, path: Path, members: Mapping[str, int]):
        self._path, self._most = path, sum(members.values()) + OVERHEAD

    def __iter__(self):
        with gzip.open(self._path) as inflated:
            limited = _Limited(inflated, self._path, self._most)
            with tarfile.open(fileobj=limited, mode="r|", format=tarfile.PAX_FORMAT) as self._tar:
                yield from self._tar

    def content(self, member: tarfile.TarInfo) -> BinaryIO:
        """The content of the member that was read last."""
        return self._tar.extractfile(member)


class _Limited:
    """A file that refuses to give more than a number of bytes."""

    def __init__(self, file: BinaryIO, path: Path, most: int):
        self._file, self._path, self._left = file, path, most

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise UserError(f"{self._path} inflates to more than its members; get the archive again")
        data = self._file.read(size)
        self._left -= len(data)
        return data
