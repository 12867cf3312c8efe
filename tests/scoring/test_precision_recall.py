"""Precision and recall against the published algorithm and against ADM's evaluator, written out."""

import functools

import numpy as np
import pytest

from diffit.cli import UserError
from diffit.scoring.metrics import NEIGHBOR
from diffit.scoring.precision_recall import adm_precision_recall, precision_recall


def published(samples: np.ndarray, reference: np.ndarray, k: int) -> tuple[float, float]:
    """All distances at once in float64: the k-th of each sorted row beyond itself is the radius of its ball."""

    def squares(a, b):
        return np.square(a[:, None].astype(np.float64) - b[None]).sum(axis=2)

    sample_radii, reference_radii = (np.sort(squares(x, x), axis=1)[:, k] for x in (samples, reference))
    apart = squares(samples, reference)
    return (apart <= reference_radii).any(axis=1).mean(), (apart <= sample_radii[:, None]).any(axis=0).mean()


def clouds(count: int, other: int, shift: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, 16)).astype(np.float32) for n in (count, other))
    return a + 5, b * 1.1 + 5 + shift


def sums(values: np.ndarray) -> np.ndarray:
    """Sum of each row, rounded once to the dtype of the values, [n]."""
    return values.sum(axis=1, dtype=np.float64).astype(np.float32).astype(values.dtype)


def sums_on_a_gpu(values: np.ndarray) -> np.ndarray:
    """Sum of each row [n] as in TensorFlow's GPU kernel: 32 partial sums, then pairs of them; each sum is rounded."""
    partial = functools.reduce(np.add, values.reshape(len(values), -1, 32).swapaxes(0, 1))
    while partial.shape[1] > 1:
        partial = partial[:, 0::2] + partial[:, 1::2]
    return partial[:, 0]


def adms(samples: np.ndarray, reference: np.ndarray, k: int, sums=sums) -> tuple[float, float]:
    """ADM's evaluator for up to 10,000 points per set, step by step: each operation returns float16."""

    def distances(u, v):
        norm_u, norm_v = (sums(x * x) for x in (u, v))
        products = (u.astype(np.float32) @ v.T.astype(np.float32)).astype(u.dtype)
        return np.maximum(norm_u[:, None] - u.dtype.type(2) * products + norm_v, 0)

    def squares(u, v):
        with np.errstate(over="ignore", invalid="ignore"):
            halves = distances(u.astype(np.float16), v.astype(np.float16))
        return halves.astype(np.float32) if np.isfinite(halves).all() else distances(u, v)

    sample_radii, reference_radii = (np.partition(squares(x, x), k, axis=1)[:, k] for x in (samples, reference))
    apart = squares(reference, samples)  # the evaluator takes the reference first
    return (apart <= reference_radii[:, None]).any(axis=0).mean(), (apart <= sample_radii).any(axis=1).mean()


def inception_like(count: int, width: int, seed: int, shift: float = 0) -> np.ndarray:
    """Correlated features that are never negative, with a mean of 0.37, float32 [count, width]."""
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    scale, directions = common.gamma(1.5, 0.22, width), 0.06 * common.standard_normal((64, width))
    logs = (own.standard_normal((count, 64)) + shift) @ directions + 0.55 * own.standard_normal((count, width)) - 0.15
    return (scale * np.exp(logs)).astype(np.float32)


def few_values(count: int, seed: int) -> np.ndarray:
    """Points on a coarse grid: many distances are equal, many points occur several times, float32 [count, 3]."""
    return np.random.default_rng(seed).integers(0, 6, (count, 3)).astype(np.float32) * 1.7


@pytest.mark.parametrize("rows", [7, 100, 1000])
@pytest.mark.parametrize(("n", "m"), [(300, 200), (101, 300)])
@pytest.mark.parametrize("k", [1, 3])
def test_blocks_equal_the_published_algorithm(rows, n, m, k):
    a, b = clouds(n, m)
    expected = published(a, b, k)
    assert all(0.1 < share < 0.99 for share in expected)
    assert precision_recall(a, b, k, rows) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("samples", "reference"),
    [
        pytest.param(*clouds(300, 200), id="normal"),
        # |u|² on both sides of 256, where the spacing of half precision doubles: distances are not symmetric.
        pytest.param(*(values / 8 + 3.375 for values in clouds(300, 200)), id="squares around 256"),
        pytest.param(*(values / 20 + 5 for values in clouds(30, 20)), id="closer than the precision"),
        pytest.param(few_values(120, 0), few_values(90, 1), id="on a grid"),
        pytest.param(inception_like(300, 512, 1, 0.05), inception_like(200, 512, 2), id="like Inception's"),
    ],
)
@pytest.mark.parametrize("rows", [64, 1000])
def test_under_adm_the_decisions_are_those_of_adms_evaluator(samples, reference, rows):
    assert adm_precision_recall(samples, reference, NEIGHBOR, rows) == adms(samples, reference, NEIGHBOR)


@pytest.mark.parametrize("width", [256, pytest.param(2048, marks=pytest.mark.slow)])
def test_half_precision_decides_otherwise_for_some_of_many_points_and_so_does_adms_evaluator(width):
    samples, reference = inception_like(2000, width, 1, 0.05), inception_like(4000, width, 2)
    expected = adms(samples, reference, NEIGHBOR)
    assert adm_precision_recall(samples, reference, NEIGHBOR) == expected
    differences = np.abs(np.subtract(precision_recall(samples, reference, NEIGHBOR), expected))
    assert (differences > 0).all() and (differences < 0.01).all()


@pytest.mark.slow
def test_partial_sums_in_half_precision_as_on_a_gpu_decide_otherwise_for_few_points():
    samples, reference = inception_like(2000, 2048, 1, 0.05), inception_like(4000, 2048, 2)
    ours = adm_precision_recall(samples, reference, NEIGHBOR)
    on_a_gpu = adms(samples, reference, NEIGHBOR, sums_on_a_gpu)
    differences = np.abs(np.subtract(ours, on_a_gpu))
    assert (differences > 0).all() and (differences < 0.002).all(), (ours, on_a_gpu)


def test_distances_that_overflow_half_precision_are_computed_in_single_precision():
    samples, reference = 300 * clouds(300, 200)[0], 300 * clouds(300, 200)[1]
    expected = adms(samples, reference, NEIGHBOR)
    assert all(0.1 < share < 0.99 for share in expected)
    assert adm_precision_recall(samples, reference, NEIGHBOR, 64) == expected


def test_an_overflow_within_the_samples_leaves_the_radii_of_the_reference_in_half_precision():
    samples, reference = inception_like(301, 512, 1, 0.05), inception_like(300, 512, 2)
    samples[7] *= 40
    assert adm_precision_recall(samples, reference, NEIGHBOR, 64) == adms(samples, reference, NEIGHBOR)


def test_samples_of_one_half_are_precise_and_recall_half():
    rng = np.random.default_rng(1)
    reference = rng.standard_normal((400, 8)).astype(np.float32)
    reference[200:] += 100
    precision, recall = precision_recall(rng.standard_normal((400, 8)).astype(np.float32), reference, NEIGHBOR)
    assert precision > 0.8 and 0.4 < recall <= 0.5


def test_a_set_without_a_third_neighbour_is_refused():
    a, b = clouds(3, 20)
    for function in (precision_recall, adm_precision_recall):
        with pytest.raises(UserError, match="3 images have no 3-th neighbour"):
            function(a, b, NEIGHBOR)
