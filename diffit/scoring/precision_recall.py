"""Precision and recall of two sets of features by k-nearest-neighbour balls (Kynkäänniemi et al. 2019), in blocks.

Each point of a set is the centre of a closed ball whose radius is the distance to its k-th nearest other point of the
set. Precision is the share of samples inside any ball of the reference. Recall is the share of the reference inside any
ball of the samples.

ADM's evaluator computes squared distances in half precision, and in single precision only if half precision overflows.
Here they are always in single precision, after subtracting the mean of the reference, which reduces rounding and
changes no distance. Points that are as far from a centre as its radius to within half precision (three digits) may
therefore count differently than in ADM's evaluator.
"""

import numpy as np
import torch
from torch import Tensor

from diffit.cli import UserError

_ROWS = 1024  # rows per block: the distances of two blocks, 4 MiB, fit into a CPU's cache


def precision_recall(samples: np.ndarray, reference: np.ndarray, k: int, rows: int = _ROWS) -> tuple[float, float]:
    """Precision and recall of samples [n, d] against a reference [m, d], float32, with k-th nearest neighbours.

    ``rows`` is the number of rows per block. Raises :class:`UserError` if a set has at most k points.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    center = torch.from_numpy(reference.mean(axis=0, dtype=np.float64).astype(np.float32)).to(device)
    sets = (_Blocks(samples, center, rows), _Blocks(reference, center, rows))
    sample_radii, reference_radii = (_radii(blocks, k) for blocks in sets)
    samples_in, reference_in = (torch.zeros(len(blocks), dtype=torch.bool, device=device) for blocks in sets)
    for i, a in sets[0]:
        for j, b in sets[1]:
            squares = _squares(a, b)  # rows of i, rows of j
            samples_in[i] |= (squares <= reference_radii[j]).any(dim=1)
            reference_in[j] |= (squares <= sample_radii[i][:, None]).any(dim=0)
    return samples_in.double().mean().item(), reference_in.double().mean().item()


class _Blocks:
    """Iterate over blocks of a set: ``(slice, centred rows on the device)``."""

    def __init__(self, features: np.ndarray, center: Tensor, rows: int):
        self.features, self.center, self.rows = features, center, rows

    def __len__(self) -> int:
        return len(self.features)

    def __iter__(self):
        return self.starting(0)

    def starting(self, first: int):
        """Iterate over the blocks from row ``first`` on."""
        for start in range(first, len(self), self.rows):
            part = slice(start, min(start + self.rows, len(self)))
            yield part, torch.from_numpy(self.features[part]).to(self.center) - self.center


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [n, m] between rows [n, d] and [m, d]; rounding can make them slightly negative."""
    squares = torch.addmm(b.square().sum(dim=1), a, b.T, alpha=-2)
    return squares.add_(a.square().sum(dim=1, keepdim=True))


def _radii(blocks: _Blocks, k: int) -> Tensor:
    """Squared distance of each row to its k-th nearest other row, [n]. Each pair of blocks is computed only once."""
    if len(blocks) <= k:
        raise UserError(
            f"{len(blocks)} images have no {k}-th neighbour; precision and recall need at least {k + 1} images"
        )
    nearest = torch.full((len(blocks), k), torch.inf, device=blocks.center.device)
    for i, a in blocks:
        for j, b in blocks.starting(i.start):
            squares = _squares(a, b)
            if i == j:
                squares.fill_diagonal_(torch.inf)
            else:
                nearest[j] = _smallest(nearest[j], squares.T.contiguous(), k)
            nearest[i] = _smallest(nearest[i], squares, k)
    return nearest.amax(dim=1).clamp_(min=0)


def _smallest(known: Tensor, new: Tensor, k: int) -> Tensor:
    """The k smallest values of each row of ``known`` and ``new`` together, [n, k]."""
    few = new.topk(min(k, new.shape[1]), dim=1, largest=False).values
    return torch.cat([known, few], dim=1).topk(k, dim=1, largest=False).values
