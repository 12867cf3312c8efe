"""The one home of randomness: every draw is a pure function of a seed and of an image's number.

The generators are counter-based (Philox) and run on the CPU in NumPy, so that neither device, nor rank count, nor
batch size, nor a restart changes what an image gets.
"""

import numpy as np

_ORDER, _TRAINING, _SAMPLING, _SPLIT, _DROPOUT = range(5)


def _generator(purpose: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((purpose, *key))))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which epoch ``epoch`` visits a data set: a permutation of ``range(count)``, int64 [count]."""
    return _generator(_ORDER, seed, epoch).permutation(count)


def training(seed: int, image: int) -> np.random.Generator:
    """Source of every draw for the ``image``-th image that a run trains on (0, 1, 2, … over all epochs)."""
    return _generator(_TRAINING, seed, image)


def dropout(seed: int, step: int, rank: int) -> np.random.Generator:
    """Source of the seed with which a rank enters a training step; only dropout inside the network draws from it."""
    return _generator(_DROPOUT, seed, step, rank)


def sampling(seed: int) -> np.random.Generator:
    """Source of every draw for the generated image of this seed: label first, then noise step by step."""
    return _generator(_SAMPLING, seed)


def split(seed: int, count: int) -> np.ndarray:
    """A permutation of ``range(count)`` that cuts a data set into disjoint parts, int64 [count]."""
    return _generator(_SPLIT, seed).permutation(count)
