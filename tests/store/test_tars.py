"""Tars: deterministic when written, never short or altered without a word when read."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from webdataset import TarWriter

from diffit.cli import UserError
from diffit.data.images import png
from diffit.store import files, tars


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def picture(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (6, 5, 3), np.uint8)


def samples(numbers, extension="npy"):
    for i in numbers:
        data = npy(picture(i)) if extension == "npy" else png(picture(i))
        yield f"{i:08d}", {extension: data, "cls": str(i % 10).encode()}


def reseal(path: Path, count: int) -> None:
    """Make the sidecar vouch for what the tar now holds, so that only the content can give the damage away."""
    files.seal(path, count=count)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "0-of-1.tar"
    tars.write_tar(path, samples(range(20)), dataset="numbers")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(3):
        tars.write_tar(tmp_path / f"{k}-of-3.tar", samples(range(k * 4, k * 4 + 4)), classes=10, made_by={"job": k})
    tars.gather(tmp_path, 3)
    return tmp_path


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


def test_index_offsets_point_at_the_members(shard: Path):
    index, data = tars.read_index(shard), shard.read_bytes()
    rows = np.flatnonzero(index.extensions == "npy")
    assert list(index.keys[rows]) == [f"{i:08d}" for i in range(20)]
    for i, row in enumerate(rows):
        member = data[index.offsets[row] : index.offsets[row] + index.sizes[row]]
        assert member == npy(picture(i))


@pytest.mark.parametrize("damage", ["missing", "flipped", "stale"])
def test_index_is_made_anew_from_the_tar(shard: Path, damage: str):
    path = shard.with_suffix(".index.npz")
    good, before = tars.read_index(shard), path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        path.write_bytes(before[:900] + bytes([before[900] ^ 1]) + before[901:])
    else:
        tars.write_tar(shard.with_name("other.tar"), samples(range(7)))
        path.write_bytes(shard.with_name("other.index.npz").read_bytes())
    again = tars.read_index(shard)
    assert np.array_equal(again.offsets, good.offsets) and np.array_equal(again.keys, good.keys)
    assert path.read_bytes() == before


def cut_at_a_member(path: Path) -> None:
    offsets = tars.read_index(path).offsets
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
    """WebDataset alone reads such a tar to its end without a word; so does Python's tarfile."""
    cut_at_a_member(shard)
    reseal(shard, count=20)
    with pytest.raises(UserError, match="holds 10 samples instead of 20"):
        list(tars.read_tar(shard))


def test_a_damaged_header_that_the_sidecar_vouches_for_is_caught(shard: Path):
    data = bytearray(shard.read_bytes())
    data[int(tars.read_index(shard).offsets[20]) - 512 + 10] ^= 0xFF
    shard.write_bytes(data)
    reseal(shard, count=20)
    with pytest.raises(UserError, match=r"0-of-1\.tar.*(samples instead of|readable tar)"):
        list(tars.read_tar(shard))


@pytest.mark.parametrize(
    ("extension", "data", "sentence"),
    [
        ("pkl", b"x", r"00000000\.pkl, which is none of png, npy, cls"),
        ("npy", npy(np.array([{"code": 1}], object)), "does not decode.*objects"),
        ("npy", b"short", "does not decode"),
        ("png", png(picture(0))[:60], "does not decode"),
        ("cls", b"two", "does not decode"),
    ],
)
def test_members_that_nobody_should_decode_are_refused(tmp_path: Path, extension, data, sentence):
    path = tmp_path / "0-of-1.tar"
    with path.open("wb") as file, TarWriter(file, encoder=False) as tar:
        tar.write({"__key__": "00000000", extension: data})
    reseal(path, count=1)
    with pytest.raises(UserError, match=sentence):
        list(tars.read_tar(path))


def test_manifest_holds_common_facts_and_nothing_of_a_job(folder: Path, monkeypatch):
    manifest = tars.read_manifest(folder)
    assert manifest["count"] == 12 and manifest["classes"] == 10 and "made_by" not in manifest
    assert [p["file"] for p in manifest["shards"]] == ["0-of-3.tar", "1-of-3.tar", "2-of-3.tar"]
    assert tars.shard_paths(folder) == [folder / f"{k}-of-3.tar" for k in range(3)]
    before = (folder / "manifest.json").read_bytes()
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    for k in range(3):
        tars.write_tar(folder / f"{k}-of-3.tar", samples(range(k * 4, k * 4 + 4)), classes=10, made_by={"job": 99})
    tars.gather(folder, 3)
    assert (folder / "manifest.json").read_bytes() == before


def test_content_hash_follows_shards_and_facts(folder: Path):
    first = tars.read_manifest(folder)["content_sha256"]
    for k in range(3):
        tars.write_tar(folder / f"{k}-of-3.tar", samples(range(k * 4, k * 4 + 4)), classes=9)
    facts = tars.gather(folder, 3)["content_sha256"]
    tars.write_tar(folder / "2-of-3.tar", samples(range(50, 54)), classes=9)
    shards = tars.gather(folder, 3)["content_sha256"]
    assert len({first, facts, shards}) == 3


def test_shards_that_disagree_about_the_classes_are_refused(folder: Path):
    before = (folder / "manifest.json").read_bytes()
    tars.write_tar(folder / "1-of-3.tar", samples(range(4, 8)), classes=9)
    with pytest.raises(UserError, match=r"classes is 10 in 0-of-3\.tar and 9 in 1-of-3\.tar"):
        tars.gather(folder, 3)
    assert (folder / "manifest.json").read_bytes() == before


def test_gather_refuses_missing_and_cut_shards(folder: Path):
    with pytest.raises(UserError, match=r"0-of-4\.json is missing"):
        tars.gather(folder, 4)
    shard = folder / "2-of-3.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(UserError, match=r"2-of-3\.tar has \d+ bytes instead of"):
        tars.gather(folder, 3)
    shard.unlink()
    with pytest.raises(UserError, match=r"2-of-3\.tar is missing"):
        tars.gather(folder, 3)


def test_gather_takes_any_sealed_shard(tmp_path: Path):
    for k in range(2):
        np.savez(tmp_path / f"{k}-of-2.npz", features=np.ones(3))
        files.seal(tmp_path / f"{k}-of-2.npz", count=3, network="n")
    assert tars.gather(tmp_path, 2)["count"] == 6


def test_images_of_a_folder_come_in_order_with_labels(folder: Path):
    read = list(tars.read_images(folder))
    assert [key for key, _, _ in read] == [f"{i:08d}" for i in range(12)]
    assert [label for _, _, label in read] == [i % 10 for i in range(12)]
    assert all(np.array_equal(image, picture(i)) for i, (_, image, _) in enumerate(read))


def test_images_without_a_class_get_label_zero(tmp_path: Path):
    tars.write_tar(tmp_path / "0-of-1.tar", [("a", {"png": png(picture(0))})])
    tars.gather(tmp_path, 1)
    assert next(tars.read_images(tmp_path))[2] == 0


def test_a_sound_shard_that_the_manifest_does_not_know_is_refused(folder: Path):
    tars.write_tar(folder / "1-of-3.tar", samples(range(90, 94)), classes=10)
    with pytest.raises(UserError, match=r"1-of-3\.tar is not the shard that manifest\.json names"):
        list(tars.read_images(folder))


def test_arrays_that_are_no_images_are_refused(tmp_path: Path):
    tars.write_tar(tmp_path / "0-of-1.tar", [("a", {"npy": npy(np.zeros((4, 4, 3), np.float32))})])
    tars.gather(tmp_path, 1)
    with pytest.raises(UserError, match="no uint8 RGB image under the key a"):
        list(tars.read_images(tmp_path))


def test_a_folder_without_a_manifest_says_how_to_write_one(tmp_path: Path):
    with pytest.raises(UserError, match=r"manifest\.json is missing; .*python -m diffit\.tars"):
        tars.read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["3-of-3.tar", "x.tar", "0of1.tar", "-1-of-2.tar"])
def test_names_that_are_no_shard_are_refused(name: str):
    with pytest.raises(UserError, match="K-of-N"):
        tars.shard_number(Path(name))
    assert tars.shard_number(Path("results/3-of-64.index.npz")) == (3, 64)


def test_the_command_gathers(folder: Path, monkeypatch):
    before = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    monkeypatch.setattr("sys.argv", ["tars", str(folder), "--shards", "3"])
    tars.main()
    assert (folder / "manifest.json").read_bytes() == before
