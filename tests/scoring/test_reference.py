"""References: made once from feature shards, stored, and read again; or ADM's published ones."""

import dataclasses

import numpy as np
import pytest
from helpers.features import features, write
from PIL import Image

from diffit import download, shard
from diffit.cli import UserError
from diffit.data import adm_batch
from diffit.measure import measure
from diffit.score import reference_of
from diffit.scoring.compare import score
from diffit.scoring.features import Features
from diffit.scoring.frechet import Gaussian
from diffit.scoring.protocols import PROTOCOLS
from diffit.scoring.reference import Reference
from diffit.store import files
from diffit.store.manifest import gather, read_images

ADM = {
    "source": "adm", "resolution": 32, "path": None, "sha256": None, "labels": False, "resize": "none",
    "statistics_images": 50_000,
}  # fmt: skip


def close(a: Gaussian, b: Gaussian) -> bool:
    return np.allclose(a.mean, b.mean, rtol=1e-12, atol=1e-12) and np.allclose(
        a.covariance, b.covariance, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("count", [40, 500])
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_any_number_of_shards_gives_the_statistics_of_one_pass(tmp_path, count, shards):
    values, spatial = features(count), features(count, 3, 20)
    folder = write(tmp_path / "data", values, shards=shards, protocol="adm", arrays={"spatial": spatial})
    reference = Reference.of(Features(folder), "data")
    assert close(reference.gaussians["features"], Gaussian.of(values))
    assert close(reference.gaussians["spatial"], Gaussian.of(spatial))
    np.testing.assert_array_equal(reference.rows, values)


def test_a_stored_reference_is_the_one_that_was_made(tmp_path):
    for name, count in [("few", 40), ("many", 500)]:
        folder = write(tmp_path / name, features(count), labels=np.arange(count))
        made = Reference.of(Features(folder), "digits")
        made.write(tmp_path / f"{name}.npz")
        read = Reference.read(tmp_path / f"{name}.npz")
        assert (read.facts["dataset"], read.facts["count"], read.complete) == ("digits", count, True)
        np.testing.assert_array_equal(read.labels, np.arange(count))
        samples = Features(write(tmp_path / f"samples {name}", features(90, 2)))
        assert score(samples, read)["metrics"] == score(samples, made)["metrics"]
        assert read.gaussians["features"].root is None if count > 64 else read.gaussians["features"].root is not None


def test_of_many_images_it_keeps_as_many_as_the_protocol_says(tmp_path):
    values = features(300)
    folder = write(tmp_path / "d", values, shards=4, protocol="few", labels=np.arange(300))
    with PROTOCOLS.extended(dataclasses.replace(PROTOCOLS["adm"], name="few", reference_images=100)):
        reference = Reference.of(Features(folder))
    assert len(reference.rows) == 100 and not reference.complete
    np.testing.assert_array_equal(reference.rows, values[reference.labels])
    assert len(set(reference.labels)) == 100 and np.ptp(reference.labels) > 200  # of all shards
    whole = reference.gaussians["features"]
    assert close(whole, Gaussian.of(values)) and whole.count == 300


def test_a_damaged_or_foreign_reference_is_refused(tmp_path):
    path = tmp_path / "r.npz"
    Reference.of(Features(write(tmp_path / "d", features(90))), "d").write(path)
    for protocol in ("adm", "edm"):
        with pytest.raises(UserError, match=f"reference for the protocol clean, not {protocol}"):
            reference_of(path, protocol, None, tmp_path / "s")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"r\.npz"):
        Reference.read(path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    files.seal(tmp_path / "other.npz", count=3)
    with pytest.raises(UserError, match="is not a reference"):
        Reference.read(tmp_path / "other.npz")


# ------------------------------------------------------------------------------------- ADM's published batches


@pytest.fixture(scope="module")
def batch(cifar, tmp_path_factory):
    """A file in ADM's form: 20 real images, and random statistics."""
    path, rng = tmp_path_factory.mktemp("batch") / "VIRTUAL.npz", np.random.default_rng(0)
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(cifar[0].iterdir())[:20]])
    roots = {name: rng.standard_normal((d, d)) / 50 for name, d in [("sigma", 2048), ("sigma_s", 2023)]}
    statistics = {name: root @ root.T for name, root in roots.items()}
    statistics |= {"mu": rng.standard_normal(2048), "mu_s": rng.standard_normal(2023)}
    np.savez(path, arr_0=pixels, arr_1=np.arange(20), **statistics)
    return path, pixels, statistics


def test_a_published_batch_is_a_data_set_and_its_statistics_make_the_reference(batch, inception, tmp_path):
    path, pixels, statistics = batch
    spec = {**ADM, "path": str(path)}
    archive, data = tmp_path / "archive", tmp_path / "imagenet32_adm"
    record = download.download(spec, archive)
    assert (record["count"], record["sha256"]) == (20, files.sha256(path))
    for number in range(2):
        shard.shard(spec, archive, data / f"{number}-of-2.tar")
        gather(data, 2) if number else None
    np.testing.assert_array_equal([image for _, image, _ in read_images(data)], pixels)
    for number in range(2):
        measure(data / f"{number}-of-2.tar", tmp_path / "features" / f"{number}-of-2.npz", inception, "adm")
    gather(tmp_path / "features", 2)
    reference = Reference.of(Features(tmp_path / "features"), "imagenet32", archive)
    assert reference.facts["count"] == 50_000 and reference.facts["dataset"] == "imagenet32"
    assert len(reference.rows) == 20 and not reference.complete
    np.testing.assert_array_equal(reference.gaussians["features"].covariance, statistics["sigma"])
    np.testing.assert_array_equal(reference.gaussians["spatial"].mean, statistics["mu_s"])
    # The command takes the file itself, and finds the same.
    direct = reference_of(path, "adm", inception, tmp_path / "scratch")
    np.testing.assert_array_equal(direct.rows, reference.rows)
    np.testing.assert_array_equal(direct.gaussians["features"].mean, statistics["mu"])
    with pytest.raises(UserError, match="--protocol adm"):
        reference_of(path, "clean", inception, tmp_path / "other")


def test_files_that_are_not_a_batch_are_refused(batch, tmp_path):
    path, pixels, statistics = batch
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:-1000])
    np.savez(tmp_path / "images.npz", arr_0=pixels)
    np.savez(tmp_path / "floats.npz", **{**statistics, "arr_0": pixels.astype(np.float32)})
    np.savez(tmp_path / "narrow.npz", arr_0=pixels, **{name: value[..., :9] for name, value in statistics.items()})
    for name in ("cut", "images", "floats", "narrow"):
        with pytest.raises(UserError, match=f"{name}.npz"):
            download.download({**ADM, "path": str(tmp_path / f"{name}.npz")}, tmp_path / name)
        assert not (tmp_path / name / "archive.json").exists()
    with pytest.raises(UserError, match="resolution is 64"):
        download.download({**ADM, "resolution": 64, "path": str(path)}, tmp_path / "size")
    with pytest.raises(UserError, match="instead of 0"):
        download.download({**ADM, "sha256": "0" * 64, "path": str(path)}, tmp_path / "hash")
    with pytest.raises(UserError, match="none at 32"):
        download.download(ADM, tmp_path / "none")
    assert sorted(adm_batch.URLS) == [256, 512]
