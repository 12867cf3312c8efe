"""Manifests: the facts of all shards of a folder, and reading the folder's images through it."""

from pathlib import Path

import numpy as np
import pytest
from helpers.shards import picture, samples

from diffit.cli import UserError
from diffit.data.images import png
from diffit.store import files, manifest, tars
from diffit.store.manifest import gather, read_images, read_manifest, shard_number, shard_paths
from diffit.store.members import encode_npy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(3):
        tars.write_tar(tmp_path / f"{k}-of-3.tar", samples(range(k * 4, k * 4 + 4)), classes=10, made_by={"job": k})
    gather(tmp_path, 3)
    return tmp_path


def test_manifest_holds_common_facts_and_nothing_of_a_job(folder: Path, monkeypatch):
    found = read_manifest(folder)
    assert found["count"] == 12 and found["classes"] == 10 and "made_by" not in found
    assert [p["file"] for p in found["shards"]] == ["0-of-3.tar", "1-of-3.tar", "2-of-3.tar"]
    assert shard_paths(folder) == [folder / f"{k}-of-3.tar" for k in range(3)]
    before = (folder / "manifest.json").read_bytes()
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    for k in range(3):
        tars.write_tar(folder / f"{k}-of-3.tar", samples(range(k * 4, k * 4 + 4)), classes=10, made_by={"job": 99})
    gather(folder, 3)
    assert (folder / "manifest.json").read_bytes() == before


def test_content_hash_follows_shards_and_facts(folder: Path):
    first = read_manifest(folder)["content_sha256"]
    for k in range(3):
        tars.write_tar(folder / f"{k}-of-3.tar", samples(range(k * 4, k * 4 + 4)), classes=9)
    facts = gather(folder, 3)["content_sha256"]
    tars.write_tar(folder / "2-of-3.tar", samples(range(50, 54)), classes=9)
    shards = gather(folder, 3)["content_sha256"]
    assert len({first, facts, shards}) == 3


def test_shards_that_disagree_about_the_classes_are_refused(folder: Path):
    before = (folder / "manifest.json").read_bytes()
    tars.write_tar(folder / "1-of-3.tar", samples(range(4, 8)), classes=9)
    with pytest.raises(UserError, match=r"classes is 10 in 0-of-3\.tar and 9 in 1-of-3\.tar"):
        gather(folder, 3)
    assert (folder / "manifest.json").read_bytes() == before


def test_gather_refuses_missing_and_cut_shards(folder: Path):
    with pytest.raises(UserError, match=r"0-of-4\.json is missing"):
        gather(folder, 4)
    shard = folder / "2-of-3.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(UserError, match=r"2-of-3\.tar has \d+ bytes instead of"):
        gather(folder, 3)
    shard.unlink()
    with pytest.raises(UserError, match=r"2-of-3\.tar is missing"):
        gather(folder, 3)


def test_gather_takes_any_sealed_shard(tmp_path: Path):
    for k in range(2):
        np.savez(tmp_path / f"{k}-of-2.npz", features=np.ones(3))
        files.seal(tmp_path / f"{k}-of-2.npz", count=3, network="n")
    assert gather(tmp_path, 2)["count"] == 6


def test_images_of_a_folder_come_in_order_with_labels(folder: Path):
    read = list(read_images(folder))
    assert [key for key, _, _ in read] == [f"{i:08d}" for i in range(12)]
    assert [label for _, _, label in read] == [i % 10 for i in range(12)]
    assert all(np.array_equal(image, picture(i)) for i, (_, image, _) in enumerate(read))


def test_images_without_a_class_get_label_zero(tmp_path: Path):
    tars.write_tar(tmp_path / "0-of-1.tar", [("a", {"png": png(picture(0))})])
    gather(tmp_path, 1)
    assert next(read_images(tmp_path))[2] == 0


def test_a_sound_shard_that_the_manifest_does_not_know_is_refused(folder: Path):
    tars.write_tar(folder / "1-of-3.tar", samples(range(90, 94)), classes=10)
    with pytest.raises(UserError, match=r"1-of-3\.tar has another sha256 than its entry in manifest\.json"):
        list(read_images(folder))


def test_arrays_that_are_not_images_are_refused(tmp_path: Path):
    tars.write_tar(tmp_path / "0-of-1.tar", [("a", {"npy": encode_npy(np.zeros((4, 4, 3), np.float32))})])
    gather(tmp_path, 1)
    with pytest.raises(UserError, match="no uint8 RGB image under the key a"):
        list(read_images(tmp_path))


def test_a_folder_without_a_manifest_says_how_to_write_one(tmp_path: Path):
    with pytest.raises(UserError, match=r"manifest\.json is missing; .*python -m diffit\.store\.manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["3-of-3.tar", "x.tar", "0of1.tar", "-1-of-2.tar"])
def test_names_that_are_not_of_shards_are_refused(name: str):
    with pytest.raises(UserError, match="K-of-N"):
        shard_number(Path(name))
    assert shard_number(Path("results/3-of-64.index.npz")) == (3, 64)


def test_the_command_gathers(folder: Path, monkeypatch):
    before = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    monkeypatch.setattr("sys.argv", ["manifest", str(folder), "--shards", "3"])
    manifest.main()
    assert (folder / "manifest.json").read_bytes() == before
