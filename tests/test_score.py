"""Scores of feature folders and of picture folders, and what score refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_measure import CleanFidNetwork
from threadpoolctl import threadpool_limits

from diffit import draws, files, tars
from diffit.cli import UserError
from diffit.frechet import Gaussian, frechet_distance, kid
from diffit.score import Features, features_of, read_features, score

WIDTH = 64
FACTS = {"protocol": "clean", "network_sha256": "n", "precision": "float32", "width": WIDTH, "size": [8, 8]}


def features(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32) + 0.1 * seed


def write(folder: Path, values: np.ndarray, pieces: int = 1, **facts) -> Path:
    folder.mkdir(parents=True)
    facts = {**FACTS, "images": {"dataset": folder.name, "count": len(values), "content_sha256": "c"}, **facts}
    for k, part in enumerate(np.array_split(values, pieces)):
        path = folder / f"{k}-of-{pieces}.npz"
        np.savez(path, features=part, labels=np.zeros(len(part), np.int64))
        files.seal(path, count=len(part), **facts)
    tars.gather(folder, pieces)
    return folder


def by_name(result: dict) -> dict[str, dict]:
    return {metric["name"]: metric for metric in result["metrics"]}


def test_class_accuracy_is_the_share_of_samples_of_the_class_asked_for():
    real, labels = np.repeat(np.eye(2, WIDTH, dtype=np.float32), 20, axis=0), np.repeat([0, 1], 20)
    manifest = {**FACTS, "width": WIDTH, "images": {"dataset": "d", "content_sha256": "c"}}
    asked = labels.copy()
    asked[:10] = 1
    result = score(Features(real, asked, manifest), Features(real, labels, manifest), class_accuracy=True)
    assert by_name(result)["class_accuracy"]["value"] == 0.75


def test_fid_and_kid_compare_all_samples_with_all_data(tmp_path):
    a, b = features(100), features(150, 1)
    folders = write(tmp_path / "a", a, pieces=3), write(tmp_path / "b", b, pieces=2)
    result = score(*map(read_features, folders))
    metrics = by_name(result)
    assert metrics["fid"]["value"] == pytest.approx(frechet_distance(Gaussian.of(a), Gaussian.of(b)), rel=1e-12)
    assert metrics["kid"]["value"] == kid(a, b)
    assert all((m["images"], m["reference_images"]) == (100, 150) for m in metrics.values())
    assert (result["protocol"], result["network_sha256"], result["images"]) == ("clean", "n", 100)
    assert result["samples"]["dataset"] == "a"
    assert result["reference"] == {"dataset": "b", "count": 150, "content_sha256": "c"}


def test_data_that_changed_since_the_training_are_noted_at_every_metric(tmp_path):
    data = write(tmp_path / "data", features(100))
    for name, trained_on, noted in [("same", "c", False), ("other", "d", True)]:
        images = {"dataset": name, "count": 90, "content_sha256": "s", "data_sha256": trained_on}
        samples = write(tmp_path / name, features(90, 1), images=images)
        metrics = score(read_features(samples), read_features(data), real_baseline=True)["metrics"]
        assert all(("data changed" in metric["note"]) == noted for metric in metrics)


@pytest.mark.parametrize("counts", [(WIDTH - 1, 200), (200, WIDTH - 1)])
def test_fewer_images_than_features_on_either_side_flag_the_fid_as_biased(tmp_path, counts):
    folders = [write(tmp_path / str(n), features(n)) for n in counts]
    metric = by_name(score(*map(read_features, folders)))["fid"]
    assert metric["biased"] and "equal counts" in metric["note"]


def test_enough_images_are_not_flagged(tmp_path):
    data = read_features(write(tmp_path / "a", features(WIDTH)))
    assert not by_name(score(data, data))["fid"]["biased"]


@pytest.mark.parametrize(("samples", "data", "n"), [(30, 150, 30), (120, 150, 75)])
def test_real_baseline_stands_at_equal_counts_against_the_same_other_real_images(tmp_path, samples, data, n):
    a, b = features(samples), features(data, 1)
    folders = write(tmp_path / "a", a), write(tmp_path / "b", b)
    metrics = by_name(score(*map(read_features, folders), real_baseline=True))
    order = draws.split(0, data)
    rest = Gaussian.of(b[order[n:]])
    for name, images in {"fid_disjoint": a[:n], "fid_real": b[order[:n]]}.items():
        assert metrics[name]["value"] == pytest.approx(frechet_distance(Gaussian.of(images), rest), rel=1e-12)
        assert (metrics[name]["images"], metrics[name]["reference_images"]) == (n, data - n)


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("protocol", "adm", "protocol of the samples is clean and that of the data adm"),
        ("network_sha256", "other", "network"),
        ("precision", "bfloat16", "precision"),
        ("size", [16, 16], "image size"),
    ],
)
def test_features_measured_in_another_way_are_refused(tmp_path, fact, value, message):
    one, two = write(tmp_path / "a", features(9)), write(tmp_path / "b", features(9), **{fact: value})
    with pytest.raises(UserError, match=message):
        score(read_features(one), read_features(two))


def test_features_of_another_width_are_refused(tmp_path):
    one = write(tmp_path / "a", features(9))
    two = write(tmp_path / "b", features(9)[:, :32], width=32)
    with pytest.raises(UserError, match="width of features"):
        score(read_features(one), read_features(two))


def test_damaged_planted_short_and_nan_features_are_refused(tmp_path):
    folder = write(tmp_path / "flipped", features(9))
    data = bytearray((folder / "0-of-1.npz").read_bytes())
    data[500] ^= 1
    (folder / "0-of-1.npz").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        read_features(folder)

    folder = write(tmp_path / "planted", features(9))
    np.savez(folder / "0-of-1.npz", features=features(9, seed=5), labels=np.zeros(9, np.int64))
    files.seal(folder / "0-of-1.npz", count=9, **FACTS)
    with pytest.raises(UserError, match=r"manifest\.json names"):
        read_features(folder)

    with pytest.raises(UserError, match="NaN"):
        read_features(write(tmp_path / "nan", np.full((9, WIDTH), np.nan, np.float32)))
    with pytest.raises(UserError, match="instead of"):
        read_features(write(tmp_path / "narrow", features(9)[:, :3]))


def test_folders_that_cannot_be_scored_are_refused(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        features_of(tmp_path / "absent", None)
    with pytest.raises(UserError, match="--network"):
        features_of(tmp_path, None)


def test_the_command_writes_one_file_or_says_one_sentence(tmp_path):
    write(tmp_path / "a", features(20)), write(tmp_path / "b", features(20, 1))
    write(tmp_path / "other", features(20), network_sha256="o")
    command = [sys.executable, "-m", "diffit.score", str(tmp_path / "a")]
    done = subprocess.run([*command, str(tmp_path / "b"), str(tmp_path / "out.json"), "--real-baseline"])
    assert done.returncode == 0
    written = (tmp_path / "out.json").read_text()
    assert list(by_name(json.loads(written))) == ["fid", "kid", "fid_disjoint", "fid_real"]
    failed = subprocess.run(
        [*command, str(tmp_path / "other"), str(tmp_path / "out.json")], capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1 and "network" in failed.stderr
    assert (tmp_path / "out.json").read_text() == written


def test_fid_and_kid_of_two_picture_folders_equal_clean_fid(inception, cifar):
    from cleanfid import fid

    samples, data = (features_of(folder, inception) for folder in cifar)
    ours = by_name(score(samples, data))
    network = CleanFidNetwork(inception)
    options = {"num_workers": 0, "batch_size": 4, "device": torch.device("cpu"), "verbose": False}
    with threadpool_limits(1):  # SciPy's root gains nothing from threads and loses much to busy neighbors
        theirs = fid.compute_fid(*map(str, cifar), custom_feat_extractor=network, **options)
    assert ours["fid"]["value"] == pytest.approx(theirs, abs=1e-3)
    assert ours["kid"]["value"] == pytest.approx(fid.kernel_distance(samples.values, data.values), abs=1e-6)
