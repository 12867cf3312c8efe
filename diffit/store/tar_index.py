"""The index of a tar: where each member starts, so that members can be mapped into memory without reading the tar.

The index of ``3-of-64.tar`` is ``3-of-64.index.npz``. It holds the fields of :class:`Index` and the tar's sha256.
"""

import tarfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from diffit.store import files


@dataclass(frozen=True)
class Index:
    """The members of a tar in their order, one row per member."""

    keys: np.ndarray  # str [members]
    extensions: np.ndarray  # str [members], without the dot
    offsets: np.ndarray  # int64 [members], position of the member's first byte in the tar
    sizes: np.ndarray  # int64 [members], bytes

    @classmethod
    def of(cls, members: list[tuple[str, str, int, int]]) -> "Index":
        """The index of members ``(key, extension, offset, size)``."""
        keys, extensions, offsets, sizes = zip(*members, strict=True) if members else ((), (), (), ())
        numbers = np.array(offsets, np.int64), np.array(sizes, np.int64)
        return cls(np.array(keys, str), np.array(extensions, str), *numbers)


def index_path(path: Path) -> Path:
    """The index file of the tar ``path``."""
    return path.with_suffix(".index.npz")


def read_index(path: Path) -> Index:
    """The index of the tar ``path``; rebuilt from the tar if it is missing, damaged or belongs to another tar.

    Trusts the sha256 in the sidecar without hashing the tar. Callers that map members verify the tar first.
    """
    sha256 = files.read_json(files.sidecar(path), files.REMAKE_SHARD)["sha256"]
    try:
        with np.load(index_path(path), allow_pickle=False) as stored:
            if str(stored["sha256"]) == sha256:
                return Index(**{name: stored[name] for name in Index.__annotations__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    index = _scan(path)
    write_index(path, index, sha256)
    return index


def write_index(path: Path, index: Index, sha256: str) -> None:
    """Write the index of the tar ``path``, whose sha256 is given."""
    with files.atomic(index_path(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, sha256=sha256, **asdict(index))


def _scan(path: Path) -> Index:
    """Build the index from the headers of a tar."""
    with tarfile.open(path, "r:") as tar:
        return Index.of([(*member.name.split(".", 1), member.offset_data, member.size) for member in tar])
