"""Distances against closed forms, SciPy's matrix root and clean-fid's formulas."""

import numpy as np
import pytest
import scipy.linalg
from cleanfid.fid import frechet_distance as cleanfid_frechet
from cleanfid.fid import kernel_distance
from helpers.differences import assert_close

from diffit.cli import UserError
from diffit.scoring.frechet import Gaussian, frechet_distance, kid


def features(count: int, width: int, seed: int, rank: int | None = None) -> np.ndarray:
    generator = np.random.default_rng(seed)
    spread = generator.standard_normal((rank or width, width)) * np.arange(1, width + 1) ** -0.5
    return (generator.standard_normal((count, rank or width)) @ spread + 0.2 * seed).astype(np.float32)


def by_sqrtm(a: Gaussian, b: Gaussian) -> float:
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    return np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)


def test_commuting_covariances_give_the_closed_form():
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.standard_normal((40, 40)))[0]
    one, two = generator.uniform(0.1, 3, (2, 40))
    mean = generator.standard_normal((2, 40))
    a, b = (Gaussian(m, (axes * v) @ axes.T, 99) for m, v in zip(mean, (one, two), strict=True))
    expected = np.square(mean[0] - mean[1]).sum() + np.square(np.sqrt(one) - np.sqrt(two)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_a_set_is_at_no_distance_from_itself_and_a_shift_costs_its_square():
    for count in (50, 400):
        values = features(count, 128, 0).astype(np.float64)
        a, moved = Gaussian.of(values), Gaussian.of(values + 0.5)
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-7 * np.trace(a.covariance))
        assert frechet_distance(a, moved) == pytest.approx(128 * 0.25, rel=1e-5)


@pytest.mark.parametrize("counts", [(900, 700), (90, 70), (90, 700), (900, 70)])
@pytest.mark.parametrize("stored", [False, True])
def test_every_way_to_the_trace_equals_sqrtm(counts, stored):
    a, b = (Gaussian.of(features(n, 256, seed)) for seed, n in enumerate(counts))
    if stored:
        a, b = (Gaussian(g.mean, g.covariance, g.count) for g in (a, b))
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)


def test_covariances_without_full_rank_at_many_images_equal_the_distance_on_their_subspace():
    values = [features(900, 64, seed) for seed in (0, 1)]
    dead = [np.concatenate([v, np.zeros_like(v)], axis=1) for v in values]
    small, wide = ([Gaussian.of(v) for v in pair] for pair in (values, dead))
    assert wide[0].root is None
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(*small), rel=1e-8)


def test_identical_images_are_at_the_distance_of_their_means():
    a, b = (Gaussian.of(np.full((300, 16), value)) for value in (1.0, 3.0))
    assert frechet_distance(a, b) == pytest.approx(16 * 4)


def test_statistics_equal_numpy_at_any_count():
    for count in (20, 5000):
        values = features(count, 64, 3)
        gaussian = Gaussian.of(values)
        np.testing.assert_allclose(gaussian.mean, values.mean(0, dtype=np.float64), rtol=1e-13)
        np.testing.assert_allclose(gaussian.covariance, np.cov(values.astype(np.float64), rowvar=False), atol=1e-13)


def test_fid_equals_clean_fid_on_the_same_features():
    a, b = features(600, 128, 0), features(500, 128, 1)
    theirs = cleanfid_frechet(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    assert_close("FID against clean-fid", frechet_distance(Gaussian.of(a), Gaussian.of(b)), theirs, 1e-4)


@pytest.mark.parametrize("counts", [(60, 60), (60, 45), (300, 200)])
def test_kid_equals_clean_fid_on_the_same_subsets(monkeypatch, counts):
    a, b = (features(n, 128, seed).astype(np.float64) for seed, n in enumerate(counts))
    generator = np.random.Generator(np.random.Philox(7))
    monkeypatch.setattr(np.random, "choice", generator.choice)
    theirs = kernel_distance(a, b, num_subsets=5, max_subset_size=50)
    assert_close("KID against clean-fid", kid(a, b, subset_size=50, subsets=5, seed=7), theirs, 1e-10)


def test_kid_depends_only_on_its_seed():
    a, b = features(200, 32, 0), features(200, 32, 1)
    np.random.seed(0)
    one = kid(a, b, 50, 5, seed=1)
    np.random.seed(1)
    assert kid(a, b, 50, 5, seed=1) == one != kid(a, b, 50, 5, seed=2)


def test_mistakes_are_refused():
    narrow, wide = features(10, 16, 0), features(10, 32, 0)
    with pytest.raises(UserError, match="width 16 and 32"):
        frechet_distance(Gaussian.of(narrow), Gaussian.of(wide))
    with pytest.raises(UserError, match="width 16 and 32"):
        kid(narrow, wide)
    with pytest.raises(UserError, match="at least 2 images"):
        Gaussian.of(narrow[:1])
    with pytest.raises(UserError, match="at least 2 images"):
        kid(narrow[:1], narrow)
    with pytest.raises(UserError, match="NaN"):
        Gaussian.of(np.full((4, 3), np.nan))
