"""The registry of metrics: what each takes of the samples, what it compares them with, and how it is computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffit.registry import Registry
from diffit.scoring.frechet import Gaussian, frechet_distance, kid
from diffit.scoring.inception_score import SPLITS, inception_score

# Floats per image of what Inception gives, by array; see diffit/scoring/inception.py.
ARRAYS = {"features": 2048, "spatial": 2023, "logits": 1008}
KID_SUBSETS, KID_SUBSET_SIZE, KID_SEED = 100, 1000, 0  # clean-fid's numbers
NEIGHBOR = 3  # ADM's k for precision and recall


class RealImages(Protocol):
    """What a metric compares samples with; :class:`diffit.scoring.reference.Reference` is one."""

    gaussians: dict[str, Gaussian]  # of all real images, by array
    rows: np.ndarray  # float32 [m, d]: features of some or all real images

    @property
    def count(self) -> int:
        """The number of real images behind the Gaussians."""


Compute = Callable[[np.ndarray, RealImages], tuple[float, ...]]


@dataclass(frozen=True)
class Metric:
    """One computation, which may give several scores.

    Args:
        name: name of the computation.
        gives: the scores by name, each with a description for people.
        protocols: the protocols that have it.
        compute: the scores of the samples' array [n, d] against real images.
        takes: the array of the samples, one of ``ARRAYS``.
        gaussian: whether it needs the real images' Gaussian of that array.
        compared: the number of real images that it compares with, None where it compares with none.
        unbiased: whether its expectation does not depend on the number of images.
        note: what a score says of itself.
    """

    name: str
    gives: Mapping[str, str]
    protocols: tuple[str, ...]
    compute: Compute
    takes: str = "features"
    gaussian: bool = False
    compared: Callable[[RealImages], int | None] = lambda real: None
    unbiased: bool = False
    note: str = ""


def _distance(array: str) -> Compute:
    return lambda values, real: (frechet_distance(Gaussian.of(values), real.gaussians[array]),)


def _kid(values: np.ndarray, real: RealImages) -> tuple[float]:
    return (kid(values, real.rows, KID_SUBSET_SIZE, KID_SUBSETS, KID_SEED),)


def _precision_recall(values: np.ndarray, real: RealImages) -> tuple[float, float]:
    from diffit.scoring.precision_recall import precision_recall  # here, since it imports torch

    return precision_recall(values, real.rows, NEIGHBOR)


def _all(real: RealImages) -> int:
    return real.count


def _kept(real: RealImages) -> int:
    return len(real.rows)


METRICS: Registry[Metric] = Registry(
    "metric",
    Metric(
        name="fid",
        gives={"fid": "Fréchet distance of Inception's features; rises as images become fewer"},
        protocols=("clean", "adm", "edm"),
        compute=_distance("features"),
        gaussian=True,
        compared=_all,
    ),
    Metric(
        name="sfid",
        gives={"sfid": "Fréchet distance of 7 channels of an inner layer at 17×17 places, which sees composition"},
        protocols=("adm",),
        compute=_distance("spatial"),
        takes="spatial",
        gaussian=True,
        compared=_all,
    ),
    Metric(
        name="inception_score",
        gives={"inception_score": "how certain and how varied the classes of the samples are; higher is better"},
        protocols=("adm",),
        compute=lambda values, _: (inception_score(values),),
        takes="logits",
        note=f"mean of {SPLITS} splits",
    ),
    Metric(
        name="precision_recall",
        gives={
            "precision": "share of the samples that lie among the real images",
            "recall": "share of the real images that lie among the samples",
        },
        protocols=("adm",),
        compute=_precision_recall,
        compared=_kept,
        note=f"k = {NEIGHBOR}",
    ),
    Metric(
        name="kid",
        gives={"kid": "kernel distance, whose expectation does not depend on the number of images"},
        protocols=("clean",),
        compute=_kid,
        compared=_kept,
        unbiased=True,
        note=f"mean of {KID_SUBSETS} subsets of up to {KID_SUBSET_SIZE} images",
    ),
)


def metrics_of(protocol: str) -> list[Metric]:
    """The metrics of a protocol, in the order in which they are computed."""
    return [metric for metric in METRICS.values() if protocol in metric.protocols]


def score_names() -> list[str]:
    """The names of all scores that metrics give."""
    return [name for metric in METRICS.values() for name in metric.gives]
