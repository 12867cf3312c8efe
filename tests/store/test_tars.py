"""Tars: deterministic when written; damaged and shortened tars are never read without an error."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers.shards import picture, samples
from webdataset import TarWriter

from diffit.cli import UserError
from diffit.data.images import png
from diffit.store import files, tar_index, tars
from diffit.store.members import encode_npy


def reseal(path: Path, count: int) -> None:
    """Make the sidecar vouch for what the tar now holds, so that only the content can give the damage away."""
    files.seal(path, count=count)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "0-of-1.tar"
    tars.write_tar(path, samples(range(20)), dataset="numbers")
    return path


@pytest.mark.parametrize("extension", ["npy", "png"])
def test_what_is_written_is_read_in_order(tmp_path: Path, extension: str):
    path = tmp_path / "a b $(touch x) '\" {0..9}" / "0-of-1.tar"
    record = tars.write_tar(path, samples([3, 1, 2], extension), resolution=6)
    read = list(tars.read_tar(path))
    assert [key for key, _ in read] == ["00000003", "00000001", "00000002"]
    for i, (_, sample) in zip([3, 1, 2], read, strict=True):
        assert np.array_equal(sample[extension], picture(i)) and sample["cls"] == i
    assert record == json.loads(path.with_suffix(".json").read_text())
    assert record["count"] == 3 and record["resolution"] == 6 and record["sha256"] == files.sha256(path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["0-of-1.index.npz", "0-of-1.json", "0-of-1.tar"]


def test_same_samples_give_the_same_bytes_of_every_file(tmp_path: Path, monkeypatch):
    for name, umask_time in (("a", 0), ("b", 1e9)):
        monkeypatch.setattr("time.time", lambda t=umask_time: t)
        tars.write_tar(tmp_path / name / "0-of-1.tar", samples(range(5)))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_other_tools_find_an_ordinary_uncompressed_tar(shard: Path):
    with tarfile.open(shard, "r:") as tar:
        members = tar.getmembers()
    assert len(members) == 40 and members[0].name == "00000000.cls"
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o444)}


@pytest.mark.parametrize("key", ["a.b", "a/b", "__skipped__", "", "ä"])
def test_keys_that_webdataset_would_merge_or_skip_are_refused(tmp_path: Path, key: str):
    with pytest.raises(AssertionError):
        tars.write_tar(tmp_path / "0-of-1.tar", [(key, {"cls": b"0"})])
    assert not list(tmp_path.iterdir())


def test_a_failure_in_mid_writing_leaves_the_earlier_shard(shard: Path):
    def breaks():
        yield from samples(range(2))
        raise RuntimeError("power cut")

    before = {p: p.read_bytes() for p in shard.parent.iterdir()}
    with pytest.raises(RuntimeError):
        tars.write_tar(shard, breaks())
    assert {p: p.read_bytes() for p in shard.parent.iterdir()} == before


def cut_at_a_member(path: Path) -> None:
    offsets = tar_index.read_index(path).offsets
    path.write_bytes(path.read_bytes()[: int(offsets[20]) - 512])


def flip_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "cut at a member": (cut_at_a_member, "bytes instead of"),
    "one bit flipped": (flip_in_the_middle, "damaged: its sha256"),
    "gone": (Path.unlink, "missing although"),
    "sidecar gone": (lambda path: path.with_suffix(".json").unlink(), "0-of-1.json is missing"),
    "sidecar no JSON": (lambda path: path.with_suffix(".json").write_text("{"), "0-of-1.json is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_refused_before_its_first_sample(shard: Path, damage: str):
    spoil, sentence = DAMAGES[damage]
    spoil(shard)
    with pytest.raises(UserError, match=f"{sentence}.*run the same command again"):
        next(tars.read_tar(shard))


def test_a_cut_that_the_sidecar_vouches_for_is_caught_by_the_count(shard: Path):
    """WebDataset itself reads this tar to its end without an error; so does Python's tarfile."""
    cut_at_a_member(shard)
    reseal(shard, count=20)
    with pytest.raises(UserError, match="holds 10 samples instead of 20"):
        list(tars.read_tar(shard))


def test_a_damaged_header_that_the_sidecar_vouches_for_is_caught(shard: Path):
    data = bytearray(shard.read_bytes())
    data[int(tar_index.read_index(shard).offsets[20]) - 512 + 10] ^= 0xFF
    shard.write_bytes(data)
    reseal(shard, count=20)
    with pytest.raises(UserError, match=r"0-of-1\.tar.*(samples instead of|readable tar)"):
        list(tars.read_tar(shard))


@pytest.mark.parametrize(
    ("extension", "data", "sentence"),
    [
        ("pkl", b"x", r"00000000\.pkl, whose extension is not one of png, npy, cls"),
        ("npy", encode_npy(np.array([{"code": 1}], object)), "cannot be decoded.*objects"),
        ("npy", b"short", "cannot be decoded"),
        ("png", png(picture(0))[:60], "cannot be decoded"),
        ("cls", b"two", "cannot be decoded"),
    ],
)
def test_members_that_cannot_be_decoded_safely_are_refused(tmp_path: Path, extension, data, sentence):
    path = tmp_path / "0-of-1.tar"
    with path.open("wb") as file, TarWriter(file, encoder=False) as tar:
        tar.write({"__key__": "00000000", extension: data})
    reseal(path, count=1)
    with pytest.raises(UserError, match=sentence):
        list(tars.read_tar(path))
