"""Features of the real FID Inception against clean-fid's own pipeline, and what measure refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.clean_fid import CleanFidNetwork
from helpers.precision import tf32_products
from PIL import Image

from diffit.cli import UserError
from diffit.data.images import center_crop, decode, png
from diffit.measure import measure
from diffit.scoring.inception import Inception
from diffit.store import files, tars
from diffit.store.manifest import gather, read_manifest
from diffit.store.members import encode_npy


def write_images(folder: Path, images: list[np.ndarray], shards: int = 1, extension: str = "npy") -> Path:
    for k in range(shards):
        encode = encode_npy if extension == "npy" else png
        numbers = range(k, len(images), shards)
        samples = [(f"{i:08d}", {extension: encode(images[i]), "cls": str(i % 3).encode()}) for i in numbers]
        tars.write_tar(folder / f"{k}-of-{shards}.tar", samples, run="r", first_seed=0)
    gather(folder, shards)
    return folder


def pixels(count: int, size: int = 8, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def test_features_of_large_and_of_small_images_equal_clean_fids_pipeline(inception, shared_data, cifar, tmp_path):
    from cleanfid.fid import get_folder_features

    photographs = sorted((shared_data / "imagenet_sample").rglob("*.JPEG"))[:6]
    for kind, paths, size in [("photographs", photographs, 400), ("small", sorted(cifar[0].iterdir())[:6], 32)]:
        folder, out = tmp_path / kind, tmp_path / f"{kind}-features" / "0-of-1.npz"
        folder.mkdir()
        for path in paths:
            center_crop(decode(path, path.name), size).save(folder / f"{path.stem}.png")
        measure(folder, out, inception)
        ours = read(out)
        theirs = get_folder_features(
            str(folder), CleanFidNetwork(inception), num_workers=0, device=torch.device("cpu"), verbose=False
        )
        assert ours["features"].shape == (6, 2048) and ours["features"].dtype == np.float32
        assert list(ours["keys"]) == sorted(f"{path.stem}.png" for path in paths)
        assert np.linalg.norm(ours["features"] - theirs) < 1e-5 * np.linalg.norm(theirs)


def test_tar_and_picture_folder_of_the_same_images_have_the_same_features(inception, tmp_path):
    images = pixels(7)
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    measure(tmp_path / "pictures", tmp_path / "features" / "0-of-1.npz", inception)
    expected = read(tmp_path / "features" / "0-of-1.npz")["features"]
    for extension in ("npy", "png"):
        folder = write_images(tmp_path / extension, images, extension=extension)
        measure(folder / "0-of-1.tar", tmp_path / f"f{extension}" / "0-of-1.npz", inception)
        stored = read(tmp_path / f"f{extension}" / "0-of-1.npz")
        np.testing.assert_array_equal(stored["features"], expected)
        np.testing.assert_array_equal(stored["labels"], [0, 1, 2, 0, 1, 2, 0])
        assert stored["keys"][6] == "00000006"


def test_shards_gather_into_a_manifest_that_names_their_images_and_network(inception, tmp_path):
    folder = write_images(tmp_path / "images", pixels(5), shards=2)
    for k in range(2):
        measure(folder / f"{k}-of-2.tar", tmp_path / "features" / f"{k}-of-2.npz", inception)
    manifest = gather(tmp_path / "features", 2)
    images = read_manifest(folder)
    assert manifest["count"] == 5
    assert manifest["network_sha256"] == files.sha256(inception / "inception.pt")
    assert manifest["images"] == {name: value for name, value in images.items() if name != "shards"}
    assert (manifest["protocol"], manifest["precision"], manifest["size"]) == ("clean", "float32", [8, 8])
    assert "made_by" not in manifest
    record = json.loads((tmp_path / "features" / "1-of-2.json").read_text())
    assert record["made_by"]["images_sha256"] == images["shards"][1]["sha256"]


def test_equal_images_give_equal_bytes_on_any_number_of_threads_and_batches_change_only_rounding(inception, tmp_path):
    folder, threads, records = write_images(tmp_path / "images", pixels(6)), torch.get_num_threads(), []
    for name, batch, count in [("a", 4, 1), ("b", 4, 2), ("c", 3, 2)]:
        torch.set_num_threads(count)
        records.append(measure(folder / "0-of-1.tar", tmp_path / name / "0-of-1.npz", inception, batch=batch))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert records[0]["sha256"] == records[1]["sha256"]
    a, c = (read(tmp_path / name / "0-of-1.npz")["features"] for name in "ac")
    assert np.linalg.norm(a - c) < 1e-5 * np.linalg.norm(a)


def test_shards_of_any_cut_concatenate_to_the_bits_of_one_pass(inception_with_classes, tmp_path):
    images = pixels(7, size=16)
    whole = write_images(tmp_path / "whole", images)
    measure(whole / "0-of-1.tar", tmp_path / "f" / "whole" / "0-of-1.npz", inception_with_classes, "adm")
    expected = read(tmp_path / "f" / "whole" / "0-of-1.npz")
    assert sorted(expected) == ["features", "keys", "labels", "logits", "spatial"]
    for count in (2, 3):
        folder, merged = write_images(tmp_path / str(count), images, shards=count), {}
        for k in range(count):
            out = tmp_path / "f" / str(count) / f"{k}-of-{count}.npz"
            measure(folder / f"{k}-of-{count}.tar", out, inception_with_classes, "adm")
            for name, values in read(out).items():
                merged.setdefault(name, []).append(values)
        order = np.argsort(np.concatenate(merged["keys"]))  # the shards take every second or third image
        for name, values in expected.items():
            np.testing.assert_array_equal(np.concatenate(merged[name])[order], values)


def test_a_protocol_gets_all_its_arrays_in_one_pass_and_names_its_gaps(inception, tmp_path, monkeypatch):
    folder, passes = write_images(tmp_path / "images", pixels(5)), []
    monkeypatch.setattr(Inception, "__call__", counted(Inception.__call__, passes))
    record = measure(folder / "0-of-1.tar", tmp_path / "adm" / "0-of-1.npz", inception, "adm")
    assert sum(passes) == 8  # two batches of four
    stored = read(tmp_path / "adm" / "0-of-1.npz")
    assert {name: stored[name].shape for name in ("features", "spatial")} == {
        "features": (5, 2048),
        "spatial": (5, 2023),
    }
    assert record["gaps"] == {"inception_score": "the network ends at its features, without the 1008 classes"}
    assert (record["protocol"], record["resize"]) == ("adm", "tensorflow_bilinear")
    assert gather(tmp_path / "adm", 1)["gaps"] == record["gaps"]
    record = measure(folder / "0-of-1.tar", tmp_path / "clean" / "0-of-1.npz", inception)
    assert (record["gaps"], record["resize"]) == ({}, "pillow_bicubic")
    assert sorted(read(tmp_path / "clean" / "0-of-1.npz")) == ["features", "keys", "labels"]


def test_measuring_computes_in_exact_float32(inception, tmp_path, monkeypatch):
    seen, call = set(), Inception.__call__
    monkeypatch.setattr(Inception, "__call__", lambda *args: seen.add(tf32_products()) or call(*args))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    folder = write_images(tmp_path / "images", pixels(1))
    measure(folder / "0-of-1.tar", tmp_path / "features" / "0-of-1.npz", inception)
    assert seen == {(False, False)}


def counted(call, passes: list[int]):
    def counting(self, pixels, extras=()):
        passes.append(len(pixels))
        return call(self, pixels, extras)

    return counting


def test_adm_and_edm_measure_alike_and_clean_otherwise(inception, tmp_path):
    folder, found = write_images(tmp_path / "images", pixels(2, size=32)), {}
    for protocol in ("clean", "adm", "edm"):
        measure(folder / "0-of-1.tar", tmp_path / protocol / "0-of-1.npz", inception, protocol)
        found[protocol] = read(tmp_path / protocol / "0-of-1.npz")["features"]
    np.testing.assert_array_equal(found["adm"], found["edm"])
    assert np.linalg.norm(found["clean"] - found["adm"]) > 0.01 * np.linalg.norm(found["adm"])


def test_a_network_that_is_not_the_sealed_one_is_refused(inception, tmp_path):
    network = tmp_path / "network"
    network.mkdir()
    data = bytearray((inception / "inception.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (network / "inception.pt").write_bytes(data)
    (network / "inception.json").write_bytes((inception / "inception.json").read_bytes())
    folder = write_images(tmp_path / "images", pixels(2))
    with pytest.raises(UserError, match=r"inception\.pt is damaged"):
        measure(folder / "0-of-1.tar", tmp_path / "f" / "0-of-1.npz", network)
    (network / "inception.pt").unlink()
    with pytest.raises(UserError, match=r"inception\.pt is missing"):
        measure(folder / "0-of-1.tar", tmp_path / "f" / "0-of-1.npz", network)
    assert not (tmp_path / "f").exists()


class FirstPixel(torch.nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x[:, 0, 0, 0] + 1
        return (first * (first / first)).reshape(-1, 1, 1, 1).expand(-1, self.width, 1, 1)


class Stub(torch.nn.Module):
    """A network of the right face whose features are the first pixel, or NaN where that is black."""

    def __init__(self, width: int = 2048):
        super().__init__()
        self.layers = torch.nn.Sequential(FirstPixel(width))


@pytest.fixture
def stub(tmp_path, monkeypatch) -> Path:
    """A network folder whose file is never parsed."""
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "inception.pt").write_bytes(b"weights")
    files.seal(folder / "inception.pt")
    monkeypatch.setattr(torch.jit, "load", lambda path, map_location: Stub())
    return folder


def test_features_that_are_not_finite_are_refused(stub, tmp_path):
    images = [np.full((8, 8, 3), 9, np.uint8), np.zeros((8, 8, 3), np.uint8)]
    folder = write_images(tmp_path / "images", images)
    with pytest.raises(UserError, match="00000001 whose features are not finite"):
        measure(folder / "0-of-1.tar", tmp_path / "f" / "0-of-1.npz", stub)
    assert not (tmp_path / "f").exists()


def test_a_network_of_another_width_is_refused(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda path, map_location: Stub(width=768))
    folder = write_images(tmp_path / "images", pixels(2))
    with pytest.raises(UserError, match="gives 768 features"):
        measure(folder / "0-of-1.tar", tmp_path / "f" / "0-of-1.npz", stub)


def test_images_of_several_sizes_are_refused(stub, tmp_path):
    folder = write_images(tmp_path / "images", pixels(1) + pixels(1, size=9))
    with pytest.raises(UserError, match="8×8 and 9×9 pixels"):
        measure(folder / "0-of-1.tar", tmp_path / "f" / "0-of-1.npz", stub)


def test_a_damaged_another_or_unlisted_shard_is_refused(stub, tmp_path):
    folder = write_images(tmp_path / "images", pixels(4))
    tar, out = folder / "0-of-1.tar", tmp_path / "f" / "0-of-1.npz"
    manifest = (folder / "manifest.json").read_text()
    tars.write_tar(tar, [("00000000", {"npy": b"x"})], run="r", first_seed=0)
    with pytest.raises(UserError, match=r"another sha256 than its entry in manifest\.json"):
        measure(tar, out, stub)
    (folder / "manifest.json").write_text(manifest.replace("0-of-1.tar", "0-of-2.tar"))
    with pytest.raises(UserError, match="not listed in"):
        measure(tar, out, stub)
    tar.write_bytes(tar.read_bytes()[:-1])
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=r"0-of-1\.tar has"):
        measure(tar, out, stub)
    assert not out.parent.exists()


def test_a_folder_without_pictures_and_a_wrong_name_are_refused(stub, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        measure(tmp_path / "empty", tmp_path / "f" / "0-of-1.npz", stub)
    folder = write_images(tmp_path / "images", pixels(2))
    with pytest.raises(UserError, match=r"use .*0-of-1\.npz"):
        measure(folder / "0-of-1.tar", tmp_path / "f" / "features.npz", stub)
    with pytest.raises(UserError, match="no-such"):
        measure(folder / "0-of-1.tar", tmp_path / "f" / "0-of-1.npz", stub, protocol="no-such")
