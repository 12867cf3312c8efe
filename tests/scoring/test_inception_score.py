"""The Inception Score in closed forms."""

import numpy as np
import pytest

from diffit.cli import UserError
from diffit.scoring.inception_score import inception_score


def test_equal_to_the_published_formula_over_ten_splits_in_order():
    logits = np.random.default_rng(0).standard_normal((1000, 20)).astype(np.float32) * 3
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    scores = []
    for part in p.reshape(10, 100, 20):
        entropies = -(part * np.log(part)).sum(axis=1)
        marginal = part.mean(axis=0)
        scores.append(np.exp(-(marginal * np.log(marginal)).sum() - entropies.mean()))
    assert inception_score(logits) == pytest.approx(np.mean(scores), rel=1e-9)


def test_certain_and_balanced_images_score_the_number_of_classes_and_uncertain_ones_1():
    certain = np.tile(200 * np.eye(5, dtype=np.float32), (20, 1))
    assert inception_score(certain) == pytest.approx(5, abs=1e-9)
    assert inception_score(np.zeros((100, 5), np.float32)) == pytest.approx(1, abs=1e-9)


def test_fewer_images_than_splits_are_refused():
    with pytest.raises(UserError, match="9 images"):
        inception_score(np.zeros((9, 5), np.float32))
