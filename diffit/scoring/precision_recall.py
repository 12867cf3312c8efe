"""Precision and recall of two sets of features by k-nearest-neighbour balls (Kynkäänniemi et al. 2019), in blocks.

Around each point of a set lies a ball that reaches to its k-th nearest neighbour in that set, itself not counted.
Precision is the share of samples within any ball of the reference, recall the share of the reference within any ball of
the samples. Balls are closed, and distances are squared, as in ADM's evaluator, which first computes them in half
precision and in single precision only where that overflows. Here they are always single precision, of features
centred on the reference's mean, which changes no distance and keeps rounding small: points that lie on the rim of a
ball within half precision (three digits) may fall on its other side there.
"""

import numpy as np
import torch
from torch import Tensor

from diffit.cli import UserError

_ROWS = 1024  # features a block: its distances, 4 MiB, stay in a CPU's cache


def precision_recall(samples: np.ndarray, reference: np.ndarray, k: int, rows: int = _ROWS) -> tuple[float, float]:
    """Precision and recall of samples [n, d] against a reference [m, d], float32.

    Raises :class:`UserError` where a set has no k-th neighbour.
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
    """Consecutive rows of a set, each ``(slice, centred rows on the device)``, copied when they are asked for."""

    def __init__(self, features: np.ndarray, center: Tensor, rows: int):
        self.features, self.center, self.rows = features, center, rows

    def __len__(self) -> int:
        return len(self.features)

    def __iter__(self):
        return self.starting(0)

    def starting(self, first: int):
        for start in range(first, len(self), self.rows):
            part = slice(start, min(start + self.rows, len(self)))
            yield part, torch.from_numpy(self.features[part]).to(self.center) - self.center


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [n, m] of rows [n, d] and [m, d]; rounding may leave a little below zero."""
    squares = torch.addmm(b.square().sum(dim=1), a, b.T, alpha=-2)
    return squares.add_(a.square().sum(dim=1, keepdim=True))


def _radii(blocks: _Blocks, k: int) -> Tensor:
    """Squared distance of each row to its k-th nearest other row, [n]; each pair is computed once for both."""
    if len(blocks) <= k:
        raise UserError(f"{len(blocks)} images have no {k}-th neighbour; precision and recall need at least {k + 1}")
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
    """The k smallest of each row of both, [n, k]."""
    few = new.topk(min(k, new.shape[1]), dim=1, largest=False).values
    return torch.cat([known, few], dim=1).topk(k, dim=1, largest=False).values
