"""The metrics: which array of the samples each takes, what it compares it with, and how it is computed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffit.frechet import Gaussian, frechet_distance, kid
from diffit.inception_score import SPLITS, inception_score
from diffit.manifold import NEIGHBOR, precision_recall
from diffit.protocols import NEEDS
from diffit.reference import Reference

KID_SUBSETS, KID_SUBSET_SIZE, KID_SEED = 100, 1000, 0  # clean-fid's numbers


@dataclass(frozen=True)
class Metric:
    """One computation, which may give several values."""

    gives: tuple[str, ...]
    compute: Callable[[np.ndarray, Reference], tuple[float, ...]]  # of the samples' array [n, d]
    against: Callable[[Reference], int | None]  # how many real images it compares with
    unbiased: bool = False  # at any number of images
    note: str = ""

    @property
    def takes(self) -> str:
        """The array of the samples."""
        return NEEDS.get(self.gives[0], "features")


def _distance(array: str) -> Callable[[np.ndarray, Reference], tuple[float]]:
    return lambda values, reference: (frechet_distance(Gaussian.of(values), reference.gaussians[array]),)


def _kid(values: np.ndarray, reference: Reference) -> tuple[float]:
    return (kid(values, reference.rows, KID_SUBSET_SIZE, KID_SUBSETS, KID_SEED),)


def _whole(reference: Reference) -> int:
    return reference.facts["count"]


def _kept(reference: Reference) -> int:
    return len(reference.rows)


METRICS = (
    Metric(("fid",), _distance("features"), _whole),
    Metric(("sfid",), _distance("spatial"), _whole),
    Metric(
        ("inception_score",),
        lambda values, _: inception_score(values)[:1],
        lambda _: None,
        note=f"mean of {SPLITS} splits",
    ),
    Metric(
        ("precision", "recall"),
        lambda values, reference: precision_recall(values, reference.rows),
        _kept,
        note=f"k = {NEIGHBOR}",
    ),
    Metric(
        ("kid",),
        _kid,
        _kept,
        unbiased=True,
        note=f"mean of {KID_SUBSETS} subsets of up to {KID_SUBSET_SIZE} images",
    ),
)
