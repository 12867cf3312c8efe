"""The Inception Score (Salimans et al. 2016), computed like ADM's evaluator."""

from itertools import pairwise

import numpy as np
from scipy.special import log_softmax

from diffit.cli import UserError

SPLITS = 10


def inception_score(logits: np.ndarray, splits: int = SPLITS) -> float:
    """Mean over consecutive splits of exp E KL(p(y|x) ‖ p(y)), in float64.

    Args:
        logits: [n, classes], in the order of the images. p(y) is the mean of p(y|x) over a split.
        splits: number of splits. Each has ``n // splits`` images, the last one also the remainder. ADM cuts at every
            5,000 images, which is the same for its 50,000 images.

    Raises :class:`UserError` for fewer images than splits.
    """
    if len(logits) < splits:
        raise UserError(
            f"{len(logits)} images are fewer than the {splits} splits of the Inception Score; give more images"
        )
    edges = [len(logits) // splits * i for i in range(splits)] + [len(logits)]
    scores = [_score(logits[start:stop]) for start, stop in pairwise(edges)]
    return float(np.mean(scores))


def _score(logits: np.ndarray) -> float:
    logs = log_softmax(logits.astype(np.float64), axis=1)  # n classes
    p = np.exp(logs)
    return np.exp((p * (logs - np.log(p.mean(axis=0)))).sum(axis=1).mean())
