"""The Inception Score of class logits (Salimans et al. 2016), as ADM's evaluator computes it."""

from itertools import pairwise

import numpy as np
from scipy.special import log_softmax

from diffit.cli import UserError

SPLITS = 10


def inception_score(logits: np.ndarray, splits: int = SPLITS) -> float:
    """Mean over consecutive splits of exp E KL(p(y|x) ‖ p(y)), in float64.

    ``logits`` [n, classes] in the order of the images; p(y) is the mean over the split. ADM cuts at every 5,000 images,
    which at its 50,000 is the same; here splits have ``n // splits`` images and the last one the remainder too. Raises
    :class:`UserError` for fewer images than splits.
    """
    if len(logits) < splits:
        raise UserError(f"{len(logits)} images cannot make {splits} splits; the Inception Score needs more images")
    edges = [len(logits) // splits * i for i in range(splits)] + [len(logits)]
    scores = [_score(logits[start:stop]) for start, stop in pairwise(edges)]
    return float(np.mean(scores))


def _score(logits: np.ndarray) -> float:
    logs = log_softmax(logits.astype(np.float64), axis=1)  # n classes
    p = np.exp(logs)
    return np.exp((p * (logs - np.log(p.mean(axis=0)))).sum(axis=1).mean())
