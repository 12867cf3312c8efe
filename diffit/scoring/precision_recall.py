"""Precision and recall of two sets of features by k-nearest-neighbour balls (Kynkäänniemi et al. 2019), in blocks.

Each point of a set is the centre of a closed ball whose radius is the distance to its k-th nearest other point of the
set. Precision is the share of samples inside any ball of the reference. Recall is the share of the reference inside any
ball of the samples.

Both functions compute squared distances as |u|² - 2 u·v + |v|² and differ in where they round:

- :func:`adm_precision_recall` rounds to half precision where ADM's evaluator does (``evaluations/evaluator.py`` of
  guided-diffusion): the features, their squares, |u|², u·v, and the result of each further operation. Sums over
  features are rounded once, at their end.
- :func:`precision_recall` rounds to single precision and first subtracts the mean of the reference, which reduces
  rounding and changes no distance.

Half precision has three digits, so that points near the surface of a ball may count differently.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffit.cli import UserError

_ROWS = 1024  # rows per block: the distances of two blocks, 4 MiB, fit into a CPU's cache


def precision_recall(samples: np.ndarray, reference: np.ndarray, k: int, rows: int = _ROWS) -> tuple[float, float]:
    """Precision and recall of samples [n, d] against a reference [m, d], float32, with k-th nearest neighbours.

    ``rows`` is the number of rows per block. Raises :class:`UserError` if a set has at most k points.
    """
    center = reference.mean(axis=0, dtype=np.float64).astype(np.float32)
    sets = (_Blocks(reference, rows, torch.float32, center), _Blocks(samples, rows, torch.float32, center))
    return _shares(*_inside(*sets, *(_radii(blocks, k) for blocks in sets)))


def adm_precision_recall(samples: np.ndarray, reference: np.ndarray, k: int, rows: int = _ROWS) -> tuple[float, float]:
    """As :func:`precision_recall`, rounded as in ADM's evaluator.

    If half precision overflows, ADM's evaluator computes the distances of a block of 10,000 × 10,000 points in single
    precision. Here this applies to all distances within or between the sets. It cannot happen if all |u|² are below
    16,000; those of Inception's features are about 500.
    """
    half = [_Blocks(features, rows, torch.float16) for features in (reference, samples)]
    radii = [_half_or_single(lambda blocks: _radii(blocks, k), blocks) for blocks in half]
    return _shares(*_half_or_single(lambda *sets: _inside(*sets, *radii), *half))


class _Block(NamedTuple):
    """Consecutive points of a set on the device."""

    rows: slice
    points: Tensor  # float32 [n, d], with values that the precision can represent
    norms: Tensor  # |u|² in the precision of the set, [n]


class _Blocks:
    """Iterate over a set of points in blocks.

    Args:
        features: the set, float32 [n, d].
        rows: points per block.
        precision: torch.float16 or torch.float32.
        center: subtracted from each point; zero by default.
    """

    def __init__(self, features: np.ndarray, rows: int, precision: torch.dtype, center: np.ndarray | float = 0):
        self.features, self.rows, self.precision, self.center = features, rows, precision, center
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def __len__(self) -> int:
        return len(self.features)

    def starting(self, first: int) -> Iterator[_Block]:
        """Iterate over the blocks from row ``first`` on."""
        for start in range(first, len(self), self.rows):
            part = slice(start, min(start + self.rows, len(self)))
            points = torch.from_numpy(self.features[part] - self.center).to(self.device, self.precision)
            norms = points.square().sum(dim=1, dtype=torch.float64).float().to(self.precision)
            yield _Block(part, points.float(), norms)

    def single(self) -> "_Blocks":
        """The same points in single precision."""
        return _Blocks(self.features, self.rows, torch.float32, self.center)


def _half_or_single(compute: Callable, *sets: _Blocks) -> Tensor | tuple[Tensor, Tensor]:
    """Compute in the precision of the sets, or in single precision if this overflows."""
    try:
        return compute(*sets)
    except OverflowError:
        return compute(*(blocks.single() for blocks in sets))


def _radii(blocks: _Blocks, k: int) -> Tensor:
    """Squared distance of each point to its k-th nearest other point, float32 [n].

    As in ADM's evaluator it is the (k+1)-th smallest of all distances, because a point is nearest to itself.
    """
    if len(blocks) <= k:
        raise UserError(
            f"{len(blocks)} images have no {k}-th neighbour; precision and recall need at least {k + 1} images"
        )
    nearest = torch.full((len(blocks), k + 1), torch.inf, device=blocks.device)
    for a in blocks.starting(0):
        for b in blocks.starting(a.rows.start):
            products = _products(a, b)
            nearest[a.rows] = _smallest(nearest[a.rows], _squares(a.norms, products, b.norms))
            if a.rows != b.rows:  # rounding makes distances asymmetric, so only the products serve both directions
                nearest[b.rows] = _smallest(nearest[b.rows], _squares(b.norms, products.T.contiguous(), a.norms))
    return nearest.amax(dim=1)


def _inside(reference: _Blocks, samples: _Blocks, reference_radii: Tensor, sample_radii: Tensor) -> tuple:
    """Whether each sample is inside a ball of the reference, and the reverse: bool [n], bool [m]."""
    samples_in, reference_in = (torch.zeros(len(s), dtype=torch.bool, device=s.device) for s in (samples, reference))
    for a in reference.starting(0):
        for b in samples.starting(0):
            squares = _squares(a.norms, _products(a, b), b.norms)
            samples_in[b.rows] |= (squares <= reference_radii[a.rows, None]).any(dim=0)
            reference_in[a.rows] |= (squares <= sample_radii[b.rows]).any(dim=1)
    return samples_in, reference_in


def _shares(samples_in: Tensor, reference_in: Tensor) -> tuple[float, float]:
    return samples_in.double().mean().item(), reference_in.double().mean().item()


def _products(a: _Block, b: _Block) -> Tensor:
    """u·v of all pairs, rounded to the precision of the set, [n, m]."""
    return (a.points @ b.points.T).to(a.norms.dtype)


def _squares(norms: Tensor, products: Tensor, other_norms: Tensor) -> Tensor:
    """Squared distances, float32 [n, m]; each operation rounds to the precision of its operands.

    Raises OverflowError if half precision overflows.
    """
    squares = (norms[:, None] - 2 * products + other_norms).clamp_(min=0)
    if squares.dtype == torch.float16 and not squares.isfinite().all():
        raise OverflowError
    return squares.float()


def _smallest(known: Tensor, new: Tensor) -> Tensor:
    """The smallest values of each row of ``known`` [n, k] and ``new`` [n, m] together, [n, k]."""
    k = known.shape[1]
    few = new.topk(min(k, new.shape[1]), dim=1, largest=False).values
    return torch.cat([known, few], dim=1).topk(k, dim=1, largest=False).values
