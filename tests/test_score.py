"""Scores of feature folders and of a user's own images, and the mistakes that are refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.clean_fid import CleanFidNetwork
from helpers.features import FACTS, WIDTH, features, write
from PIL import Image
from threadpoolctl import threadpool_limits

from diffit.cli import UserError
from diffit.numerics import rng
from diffit.score import features_of, reference_of
from diffit.scoring.compare import score
from diffit.scoring.features import Features
from diffit.scoring.frechet import Gaussian, frechet_distance, kid
from diffit.scoring.inception_score import inception_score
from diffit.scoring.metrics import NEIGHBOR
from diffit.scoring.precision_recall import adm_precision_recall, precision_recall
from diffit.scoring.reference import Reference
from diffit.store import files


def generated(count: int, dataset: str = "data", **facts) -> dict:
    """What a manifest of samples says of them."""
    return {"dataset": dataset, "count": count, "content_sha256": "s", "sampler": {"first_seed": 100}, **facts}


def scored(a: Path, b: Path, **options) -> dict:
    return score(Features(a), Reference.of(Features(b)), **options)


def by_name(result: dict) -> dict[str, dict]:
    return {metric["name"]: metric for metric in result["metrics"]}


# ------------------------------------------------------------------------------------------------ what it gives


def test_class_accuracy_is_the_share_of_samples_of_the_class_asked_for(tmp_path):
    real, labels = np.repeat(np.eye(2, WIDTH, dtype=np.float32), 20, axis=0), np.repeat([0, 1], 20)
    asked = labels.copy()
    asked[:10] = 1
    folders = write(tmp_path / "a", real, labels=asked), write(tmp_path / "b", real, labels=labels)
    assert by_name(scored(*folders, class_accuracy=True))["class_accuracy"]["value"] == 0.75


def test_fid_and_kid_compare_all_samples_with_all_data(tmp_path):
    a, b = features(100), features(150, 1)
    result = scored(write(tmp_path / "a", a, shards=3), write(tmp_path / "b", b, shards=2))
    metrics = by_name(result)
    assert metrics["fid"]["value"] == pytest.approx(frechet_distance(Gaussian.of(a), Gaussian.of(b)), rel=1e-11)
    assert metrics["kid"]["value"] == kid(a, b)
    assert all((m["images"], m["reference_images"]) == (100, 150) for m in metrics.values())
    expected = {"protocol": "clean", "network_sha256": "n", "resize": "r", "precision": "float32", "images": 100}
    assert {name: result[name] for name in expected} == expected
    assert result["samples"]["dataset"] == "a"
    assert (result["reference"]["dataset"], result["reference"]["count"]) == ("b", 150)


def test_adm_gives_all_scores_of_one_measurement_and_a_gap_where_the_network_has_no_classes(tmp_path):
    def arrays(count, seed):
        return {"spatial": features(count, seed + 5, 32), "logits": 3 * features(count, seed + 9, 20)}

    a, b, other = features(300), features(400, 1), arrays(300, 0)
    reference = write(tmp_path / "b", b, protocol="adm", arrays=arrays(400, 1), shards=3)
    result = scored(write(tmp_path / "a", a, protocol="adm", arrays=other, shards=2), reference)
    values = {name: metric["value"] for name, metric in by_name(result).items()}
    spatial = [Gaussian.of(x) for x in (other["spatial"], arrays(400, 1)["spatial"])]
    expected = {
        "fid": frechet_distance(Gaussian.of(a), Gaussian.of(b)),
        "sfid": frechet_distance(*spatial),
        "inception_score": inception_score(other["logits"]),
        **dict(zip(("precision", "recall"), adm_precision_recall(a, b, NEIGHBOR), strict=True)),
        **dict(zip(("precision_float32", "recall_float32"), precision_recall(a, b, NEIGHBOR), strict=True)),
    }
    assert (expected["precision"], expected["recall"]) != (expected["precision_float32"], expected["recall_float32"])
    assert values == pytest.approx(expected, rel=1e-9)
    assert all("300 images per set instead of the protocol's 50000" in m["note"] for m in result["metrics"])

    gaps = {"inception_score": "the network ends at its features"}
    without = write(tmp_path / "c", a, protocol="adm", arrays={"spatial": other["spatial"]}, gaps=gaps)
    metrics = by_name(scored(without, reference))
    assert (metrics["inception_score"]["value"], metrics["inception_score"]["sets"]) == (None, [])
    assert "the network ends at its features" in metrics["inception_score"]["note"]
    assert metrics["sfid"]["value"] == pytest.approx(expected["sfid"], rel=1e-9)


def test_three_sets_by_seed_give_their_minimum_and_apart_from_it_mean_and_deviation(tmp_path):
    a, b = features(300), features(400, 1)
    samples = write(tmp_path / "a", a, protocol="edm", shards=4, images=generated(300))
    reference = write(tmp_path / "data", b, protocol="edm")
    metric = by_name(scored(samples, reference, images=100))["fid"]
    each = [frechet_distance(Gaussian.of(a[k : k + 100]), Gaussian.of(b)) for k in (0, 100, 200)]
    assert [one["first_seed"] for one in metric["sets"]] == [100, 200, 300]
    assert [one["value"] for one in metric["sets"]] == pytest.approx(each, rel=1e-9)
    assert (metric["statistic"], metric["images"]) == ("minimum", 100)
    assert (metric["value"], metric["mean"], metric["std"]) == pytest.approx(
        (min(each), np.mean(each), np.std(each, ddof=1)), rel=1e-9
    )
    single = by_name(scored(samples, reference))["fid"]
    assert (single["statistic"], single["mean"], single["std"]) == ("single", None, None)


def test_a_protocol_of_one_set_scores_the_first_of_several(tmp_path):
    a, b = features(300), features(400, 1)
    samples, reference = write(tmp_path / "a", a, images=generated(300)), write(tmp_path / "data", b)
    metric = by_name(scored(samples, reference, images=100))["fid"]
    assert metric["value"] == pytest.approx(frechet_distance(Gaussian.of(a[:100]), Gaussian.of(b)), rel=1e-9)
    assert (metric["statistic"], len(metric["sets"])) == ("single", 1)


def test_data_that_changed_since_the_training_are_noted_at_every_metric(tmp_path):
    data = write(tmp_path / "data", features(100))
    for name, trained_on, noted in [("same", "c", False), ("other", "d", True)]:
        samples = write(tmp_path / name, features(90, 1), images=generated(90, data_sha256=trained_on))
        metrics = scored(samples, data, real_baseline=True)["metrics"]
        assert all(("data changed" in metric["note"]) == noted for metric in metrics)


def test_steps_that_the_training_skipped_are_noted_at_every_metric(tmp_path):
    data = write(tmp_path / "data", features(100))
    for name, facts, noted in [("none", {}, False), ("two", {"skipped_steps": [7, 12]}, True)]:
        samples = write(tmp_path / name, features(90, 1), images=generated(90, **facts))
        result = scored(samples, data, real_baseline=True)
        note = "trained without the updates of 2 steps that were not finite: 7, 12"
        assert all((note in metric["note"]) == noted for metric in result["metrics"])
        assert result["samples"].get("skipped_steps", []) == facts.get("skipped_steps", [])


@pytest.mark.parametrize("counts", [(WIDTH - 1, 200), (200, WIDTH - 1)])
def test_fewer_images_than_features_on_either_side_flag_the_fid_as_biased(tmp_path, counts):
    metric = by_name(scored(*(write(tmp_path / str(n), features(n)) for n in counts)))["fid"]
    assert metric["biased"] and "equal counts" in metric["note"]


def test_enough_images_and_the_kernel_distance_are_not_flagged(tmp_path):
    data = write(tmp_path / "a", features(WIDTH))
    assert not by_name(scored(data, data))["fid"]["biased"]
    assert not by_name(scored(write(tmp_path / "few", features(9)), data))["kid"]["biased"]


@pytest.mark.parametrize(("samples", "data", "n"), [(30, 150, 30), (120, 150, 75)])
def test_real_baseline_stands_at_equal_counts_against_the_same_other_real_images(tmp_path, samples, data, n):
    a, b = features(samples), features(data, 1)
    metrics = by_name(scored(write(tmp_path / "a", a), write(tmp_path / "b", b), real_baseline=True))
    order = rng.split(0, data)
    rest = Gaussian.of(b[order[n:]])
    for name, images in {"fid_disjoint": a[:n], "fid_real": b[order[:n]]}.items():
        assert metrics[name]["value"] == pytest.approx(frechet_distance(Gaussian.of(images), rest), rel=1e-12)
        assert (metrics[name]["images"], metrics[name]["reference_images"]) == (n, data - n)


def test_a_reference_without_its_images_leaves_the_real_baseline_a_gap(tmp_path):
    folders = [write(tmp_path / name, features(90), protocol="edm") for name in "ab"]
    metric = by_name(scored(*folders, real_baseline=True))["fid_real"]
    assert metric["value"] is None and "keeps the features of 0 of its 90 images" in metric["note"]


# ------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("protocol", "edm", "protocol of the samples is clean and that of the real images edm"),
        ("network_sha256", "other", "network"),
        ("precision", "bfloat16", "precision"),
        ("resize", "other", "resize"),
        ("size", [16, 16], "image size"),
    ],
)
def test_features_measured_in_another_way_are_refused(tmp_path, fact, value, message):
    one, two = write(tmp_path / "a", features(9)), write(tmp_path / "b", features(9), **{fact: value})
    with pytest.raises(UserError, match=message):
        scored(one, two)


def test_features_of_another_width_are_refused(tmp_path):
    one = write(tmp_path / "a", features(9))
    two = write(tmp_path / "b", features(9)[:, :32], width=32)
    with pytest.raises(UserError, match="width of features"):
        scored(one, two)


def test_the_reference_of_another_data_set_is_refused(tmp_path):
    samples = write(tmp_path / "a", features(9), images=generated(9, dataset="cifar10"))
    with pytest.raises(UserError, match="for cifar10 and the reference is of ffhq64"):
        scored(samples, write(tmp_path / "ffhq64", features(9)))


@pytest.mark.parametrize("count", [49, 51, 99])
def test_one_image_too_few_or_too_many_is_refused(tmp_path, count):
    samples, data = write(tmp_path / "a", features(count)), write(tmp_path / "b", features(60))
    with pytest.raises(UserError, match=f"{count} images, which are not complete sets of 50"):
        scored(samples, data, images=50)


def test_damaged_planted_short_and_nan_features_are_refused(tmp_path):
    folder = write(tmp_path / "flipped", features(9))
    data = bytearray((folder / "0-of-1.npz").read_bytes())
    data[500] ^= 1
    (folder / "0-of-1.npz").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        Features(folder).array("features")

    folder = write(tmp_path / "planted", features(9))
    np.savez(folder / "0-of-1.npz", features=features(9, seed=5), labels=np.zeros(9, np.int64))
    files.seal(folder / "0-of-1.npz", count=9, **FACTS)
    with pytest.raises(UserError, match=r"another sha256 than its entry in manifest\.json"):
        Features(folder).array("features")

    with pytest.raises(UserError, match="NaN"):
        Features(write(tmp_path / "nan", np.full((9, WIDTH), np.nan, np.float32))).array("features")
    with pytest.raises(UserError, match="instead of"):
        Features(write(tmp_path / "narrow", features(9)[:, :3])).array("features")
    with pytest.raises(UserError, match="holds no spatial"):
        Features(write(tmp_path / "clean", features(9))).array("spatial")


def test_what_cannot_be_scored_is_refused(tmp_path):
    with pytest.raises(UserError, match="missing"):
        features_of(tmp_path / "absent", "clean", None, tmp_path / "scratch")
    write(tmp_path / "a", features(9))
    with pytest.raises(UserError, match="for the protocol clean, not adm"):
        features_of(tmp_path / "a", "adm", None, tmp_path / "scratch")


def test_a_truncated_network_file_is_refused(inception, cifar, tmp_path):
    network = tmp_path / "network"
    network.mkdir()
    (network / "inception.json").write_bytes((inception / "inception.json").read_bytes())
    (network / "inception.pt").write_bytes((inception / "inception.pt").read_bytes()[:-1])
    with pytest.raises(UserError, match=r"inception\.pt"):
        features_of(cifar[0], "clean", network, tmp_path / "scratch")


# ------------------------------------------------------------------------------------------------ as a command


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
    printed = subprocess.run([*command, str(tmp_path / "b")], capture_output=True, text=True)
    assert printed.returncode == 0 and "fid" in printed.stdout and "biased" in printed.stdout
    explained = subprocess.run([sys.executable, "-m", "diffit.score", "--help"], capture_output=True, text=True)
    assert all(name in explained.stdout for name in ("clean-fid", "guided-diffusion", "fid.py", "sfid"))


def test_folders_tars_and_npz_of_the_same_pictures_are_at_no_distance(inception, cifar, tmp_path):
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(cifar[0].iterdir())[:12]])
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i:02d}.png")
    np.savez(tmp_path / "samples.npz", arr_0=pixels)
    subprocess.run(["tar", "-cf", tmp_path / "pictures.tar", "-C", tmp_path, "folder"], check=True)
    reference = reference_of(tmp_path / "folder", "edm", inception, tmp_path / "r")
    for name in ("samples.npz", "pictures.tar", "folder"):
        result = score(features_of(tmp_path / name, "edm", inception, tmp_path / f"of {name}"), reference)
        assert by_name(result)["fid"]["value"] == pytest.approx(0, abs=1e-4)
        assert result["resize"] == "tensorflow_bilinear"


@pytest.mark.slow
def test_fid_and_kid_of_two_picture_folders_equal_clean_fid(inception, cifar, tmp_path):
    from cleanfid import fid

    samples, data = (features_of(f, "clean", inception, tmp_path / str(i)) for i, f in enumerate(cifar))
    ours = by_name(score(samples, Reference.of(data)))
    network = CleanFidNetwork(inception)
    options = {"num_workers": 0, "batch_size": 4, "device": torch.device("cpu"), "verbose": False}
    with threadpool_limits(1):  # SciPy's matrix root is not faster with threads, and slower on a busy machine
        theirs = fid.compute_fid(*map(str, cifar), custom_feat_extractor=network, **options)
    assert ours["fid"]["value"] == pytest.approx(theirs, abs=1e-3)
    values = [each.array("features") for each in (samples, data)]
    assert ours["kid"]["value"] == pytest.approx(fid.kernel_distance(*values), abs=1e-6)
