"""The registry of metrics: the input of each, its protocols, and how it is computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffit.registry import Registry
from diffit.scoring.frechet import Gaussian, frechet_distance, kid
from diffit.scoring.inception_score import SPLITS, inception_score

# Floats per image of each array that Inception gives; see diffit/scoring/inception.py.
ARRAYS = {"features": 2048, "spatial": 2023, "logits": 1008}
KID_SUBSETS, KID_SUBSET_SIZE, KID_SEED = 100, 1000, 0  # as in clean-fid
NEIGHBOR = 3  # k of precision and recall in ADM's evaluator


class RealImages(Protocol):
    """The real images that a metric compares samples with, such as :class:`diffit.scoring.reference.Reference`."""

    gaussians: dict[str, Gaussian]  # by array, fitted to all real images
    rows: np.ndarray  # float32 [m, d], features of some or all real images

    @property
    def count(self) -> int:
        """The number of real images behind the Gaussians."""


Compute = Callable[[np.ndarray, RealImages], tuple[float, ...]]


@dataclass(frozen=True)
class Metric:
    """A computation that gives one or several scores.

    Args:
        name: name of the computation.
        gives: names of the scores, each with a description for people.
        protocols: names of the protocols that have this metric.
        compute: maps an array [n, d] of the samples and the real images to the scores, in the order of ``gives``.
        takes: name of the samples' array, a key of ``ARRAYS``.
        gaussian: whether it needs the Gaussian of the same array of the real images.
        compared: returns the number of real images that it compares with, None if it uses none.
        unbiased: whether its expected value does not depend on the number of images.
        note: note in the score file.
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
    from diffit.scoring.precision_recall import adm_precision_recall  # here, because it imports torch

    return adm_precision_recall(values, real.rows, NEIGHBOR)


def _precision_recall_float32(values: np.ndarray, real: RealImages) -> tuple[float, float]:
    from diffit.scoring.precision_recall import precision_recall

    return precision_recall(values, real.rows, NEIGHBOR)


def _all_images(real: RealImages) -> int:
    return real.count


def _kept_images(real: RealImages) -> int:
    return len(real.rows)


METRICS: Registry[Metric] = Registry(
    "metric",
    Metric(
        name="fid",
        gives={"fid": "Fréchet distance of Inception's features; higher for fewer images on either side"},
        protocols=("clean", "adm", "edm"),
        compute=_distance("features"),
        gaussian=True,
        compared=_all_images,
    ),
    Metric(
        name="sfid",
        gives={"sfid": "Fréchet distance of 7 channels of an inner layer at 17×17 positions; sensitive to layout"},
        protocols=("adm",),
        compute=_distance("spatial"),
        takes="spatial",
        gaussian=True,
        compared=_all_images,
    ),
    Metric(
        name="inception_score",
        gives={
            "inception_score": "how certain and how diverse the predicted classes of the samples are; higher is better"
        },
        protocols=("adm",),
        compute=lambda values, _: (inception_score(values),),
        takes="logits",
        note=f"mean of {SPLITS} splits",
    ),
    Metric(
        name="precision_recall",
        gives={
            "precision": "share of the samples that lie within the real images; rounded to half precision as by ADM",
            "recall": "share of the real images that lie within the samples; rounded to half precision as by ADM",
        },
        protocols=("adm",),
        compute=_precision_recall,
        compared=_kept_images,
        note=f"k = {NEIGHBOR}, distances in half precision",
    ),
    Metric(
        name="precision_recall_float32",
        gives={
            "precision_float32": "precision without rounding to half precision",
            "recall_float32": "recall without rounding to half precision",
        },
        protocols=("adm",),
        compute=_precision_recall_float32,
        compared=_kept_images,
        note=f"k = {NEIGHBOR}, distances in single precision",
    ),
    Metric(
        name="kid",
        gives={"kid": "kernel distance; its expected value does not depend on the number of images"},
        protocols=("clean",),
        compute=_kid,
        compared=_kept_images,
        unbiased=True,
        note=f"mean of {KID_SUBSETS} subsets of up to {KID_SUBSET_SIZE} images",
    ),
)


def metrics_of(protocol: str) -> list[Metric]:
    """The metrics of a protocol, in the order of the registry."""
    return [metric for metric in METRICS.values() if protocol in metric.protocols]


def score_names() -> list[str]:
    """The names of all scores, in the order of the registry."""
    return [name for metric in METRICS.values() for name in metric.gives]
