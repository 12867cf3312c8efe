"""Precision and recall against the published algorithm, written out."""

import numpy as np
import pytest

from diffit.cli import UserError
from diffit.scoring.metrics import NEIGHBOR
from diffit.scoring.precision_recall import precision_recall


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


@pytest.mark.parametrize("rows", [7, 100, 1000])
@pytest.mark.parametrize(("n", "m"), [(300, 200), (101, 300)])
@pytest.mark.parametrize("k", [1, 3])
def test_blocks_equal_the_published_algorithm(rows, n, m, k):
    a, b = clouds(n, m)
    expected = published(a, b, k)
    assert all(0.1 < share < 0.99 for share in expected)
    assert precision_recall(a, b, k, rows) == pytest.approx(expected, abs=1e-6)


def test_samples_of_one_half_are_precise_and_recall_half():
    rng = np.random.default_rng(1)
    reference = rng.standard_normal((400, 8)).astype(np.float32)
    reference[200:] += 100
    precision, recall = precision_recall(rng.standard_normal((400, 8)).astype(np.float32), reference, NEIGHBOR)
    assert precision > 0.8 and 0.4 < recall <= 0.5


def test_a_set_without_a_third_neighbour_is_refused():
    a, b = clouds(3, 20)
    with pytest.raises(UserError, match="3 images have no 3-th neighbour"):
        precision_recall(a, b, NEIGHBOR)
