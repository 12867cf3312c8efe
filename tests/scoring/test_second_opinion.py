"""The same features scored by torch-fidelity, an independent implementation."""

import numpy as np
import pytest
import torch
from helpers.differences import assert_close
from threadpoolctl import threadpool_limits
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from diffit.score import features_of
from diffit.scoring.frechet import Gaussian, frechet_distance
from diffit.scoring.inception_score import inception_score
from diffit.scoring.metrics import NEIGHBOR
from diffit.scoring.precision_recall import precision_recall


@pytest.fixture(scope="module")
def measured(inception_with_classes, cifar, tmp_path_factory):
    """What adm takes of twice 40 real images, from a network with classes."""
    scratch = tmp_path_factory.mktemp("measured")
    return [features_of(f, "adm", inception_with_classes, scratch / str(i)) for i, f in enumerate(cifar)]


def test_precision_and_recall_of_real_features(measured):
    a, b = (each.array("features") for each in measured)
    theirs = prc_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), prc_neighborhood=3, verbose=False)
    ours = precision_recall(a, b, NEIGHBOR)
    assert_close("precision and recall against torch-fidelity", ours, (theirs["precision"], theirs["recall"]), 1e-6)
    assert all(0 < share < 1 for share in ours)


def test_the_inception_score_of_real_logits(measured):
    logits = measured[0].array("logits") * 20  # the classes are drawn at random, so that they hardly differ
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    ours = inception_score(logits)
    assert_close("Inception Score against torch-fidelity", ours, theirs["inception_score_mean"], 1e-6)
    assert ours > 1.1


def test_the_frechet_distance_of_real_features(measured):
    sets = [each.array("spatial")[:, ::90].astype(np.float64) for each in measured]  # 23 of them, so of full rank
    ours = frechet_distance(*map(Gaussian.of, sets))
    with threadpool_limits(1):
        theirs = fid_statistics_to_metric(
            *({"mu": values.mean(axis=0), "sigma": np.cov(values, rowvar=False)} for values in sets), verbose=False
        )
    assert_close("Fréchet distance against torch-fidelity", ours, theirs["frechet_inception_distance"], 1e-6)
    assert ours > 0
