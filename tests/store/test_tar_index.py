"""The index of a tar: it locates every member, and is rebuilt if it is lost."""

from pathlib import Path

import numpy as np
import pytest
from helpers.shards import picture, samples

from diffit.store import tar_index, tars
from diffit.store.members import encode_npy


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "0-of-1.tar"
    tars.write_tar(path, samples(range(20)), dataset="numbers")
    return path


def test_index_offsets_point_at_the_members(shard: Path):
    index, data = tar_index.read_index(shard), shard.read_bytes()
    rows = np.flatnonzero(index.extensions == "npy")
    assert list(index.keys[rows]) == [f"{i:08d}" for i in range(20)]
    for i, row in enumerate(rows):
        member = data[index.offsets[row] : index.offsets[row] + index.sizes[row]]
        assert member == encode_npy(picture(i))


@pytest.mark.parametrize("damage", ["missing", "flipped", "stale"])
def test_index_is_rebuilt_from_the_tar(shard: Path, damage: str):
    path = shard.with_suffix(".index.npz")
    good, before = tar_index.read_index(shard), path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        path.write_bytes(before[:900] + bytes([before[900] ^ 1]) + before[901:])
    else:
        tars.write_tar(shard.with_name("other.tar"), samples(range(7)))
        path.write_bytes(shard.with_name("other.index.npz").read_bytes())
    again = tar_index.read_index(shard)
    assert np.array_equal(again.offsets, good.offsets) and np.array_equal(again.keys, good.keys)
    assert path.read_bytes() == before
