"""All random number generators: each is a pure function of a seed and an image's number.

The generators are counter-based (Philox) and run on the CPU in NumPy. Therefore the random numbers of an image do not
depend on the device, the number of ranks, the batch size or restarts.
"""

import numpy as np

_ORDER, _TRAINING, _SAMPLING, _SPLIT, _DROPOUT = range(5)


def _generator(purpose: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((purpose, *key))))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch visits the ``count`` images of a data set: a permutation, int64 [count]."""
    return _generator(_ORDER, seed, epoch).permutation(count)


def training(seed: int, image: int) -> np.random.Generator:
    """The generator for the ``image``-th training image of a run, counted from 0 over all epochs."""
    return _generator(_TRAINING, seed, image)


def dropout(seed: int, step: int, rank: int) -> np.random.Generator:
    """The generator of the torch seed that a rank sets before a training step; only dropout layers use that seed."""
    return _generator(_DROPOUT, seed, step, rank)


def sampling(seed: int) -> np.random.Generator:
    """The generator for the generated image with this seed: first its label, then the noise of each step."""
    return _generator(_SAMPLING, seed)


def split(seed: int, count: int) -> np.ndarray:
    """A permutation of ``range(count)`` whose slices are disjoint random subsets of a data set, int64 [count]."""
    return _generator(_SPLIT, seed).permutation(count)
