"""Precision and recall of 10,000 × 50,000 features against ADM's algorithm in NumPy.

    python -m bench.manifold

The other is ADM's evaluator in NumPy: batches of 10,000 rows, squared distances of two batches computed in single and
stored in half precision, and ``np.partition`` for the k-th neighbor. The benchmark also prints our peak memory without
the features.
"""

import resource

import numpy as np
import torch

from bench.frechet import WIDTH, features
from bench.timing import compare, note
from diffit.scoring.metrics import NEIGHBOR
from diffit.scoring.precision_recall import precision_recall

REAL, GENERATED = 10_000, 50_000
BATCH = 10_000  # ADM's
LIMIT_GIB = 0.5


def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All squared distances of rows [n, d] and [m, d], computed as in ADM, float16 or float32 [n, m]."""
    apart = np.square(a).sum(axis=1)[:, None] - 2 * (a @ b.T) + np.square(b).sum(axis=1)
    halves = np.maximum(apart, 0).astype(np.float16)
    return halves if np.isfinite(halves).all() else np.maximum(apart, 0)


def parts(values: np.ndarray) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, len(values), BATCH)]


def radii(values: np.ndarray) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row, float32 [n]."""
    found = []
    for part in parts(values):
        distances = np.concatenate([squares(values[part], values[other]) for other in parts(values)], axis=1)
        found.append(np.partition(distances, NEIGHBOR, axis=1)[:, NEIGHBOR])
    return np.concatenate(found).astype(np.float32)


def by_numpy(samples: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    sample_radii, reference_radii = radii(samples), radii(reference)
    samples_in, reference_in = np.zeros(len(samples), bool), np.zeros(len(reference), bool)
    for i in parts(samples):
        for j in parts(reference):
            distances = squares(samples[i], reference[j])
            samples_in[i] |= (distances <= reference_radii[j]).any(axis=1)
            reference_in[j] |= (distances <= sample_radii[i, None]).any(axis=0)
    return samples_in.mean(), reference_in.mean()


def random_features(count: int, seed: int) -> np.ndarray:
    """Features from one distribution, generated in blocks, so that the peak memory is that of the features."""
    values = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 1000):
        number = seed + start // 1000
        values[start : start + 1000] = features(1000, number) - 0.1 * number
    return values


def peak_gib() -> float:
    """Peak memory of this process plus that of the GPU in GiB."""
    on_gpu = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 + on_gpu


def main() -> None:
    reference, samples = random_features(REAL, 0), random_features(GENERATED, 100)
    before = peak_gib()
    values = {"ours": precision_recall(samples, reference, NEIGHBOR)}
    beyond = peak_gib() - before

    def ours() -> None:
        precision_recall(samples, reference, NEIGHBOR)

    def other() -> None:
        values["other"] = by_numpy(samples, reference)

    compare("precision and recall, 10,000 × 50,000", ours, other, repeat=1, target=1.9)
    note(f"peak memory of ours without the features: {beyond:.2f} GiB, limit {LIMIT_GIB}")
    difference = max(abs(a - b) for a, b in zip(values["ours"], values["other"], strict=True))
    note(f"largest difference {difference:.1e}; the other compares distances in half precision")


if __name__ == "__main__":
    main()
