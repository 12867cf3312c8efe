"""Precision and recall of 10,000 × 50,000 features against ADM's algorithm in NumPy.

    python -m bench.manifold [--reference N] [--samples N]

The other is ADM's evaluator in NumPy: batches of 10,000 rows, squared distances of two batches whose intermediate
results are all rounded to half precision, and ``np.partition`` for the k-th neighbor. Both round alike. The benchmark
also prints our values in half and in single precision, and our peak memory without the features.
"""

import argparse
import resource

import numpy as np
import torch

from bench.frechet import WIDTH, features
from bench.timing import compare, note
from diffit.scoring.metrics import NEIGHBOR
from diffit.scoring.precision_recall import adm_precision_recall, precision_recall

BATCH = 10_000  # ADM's
LIMIT_GIB = 0.5


def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All squared distances of rows [n, d] and [m, d] as in ADM: rounded to float16 unless this overflows; [n, m]."""
    halves = rounded_squares(a.astype(np.float16), b.astype(np.float16))
    return halves if np.isfinite(halves).all() else rounded_squares(a, b)


def rounded_squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All squared distances of rows [n, d] and [m, d]. Each operation rounds to the dtype of the arrays; [n, m]."""
    products = (a.astype(np.float32) @ b.T.astype(np.float32)).astype(a.dtype)  # NumPy has no fast float16 product
    apart = np.square(a).sum(axis=1)[:, None] - 2 * products + np.square(b).sum(axis=1)
    return np.maximum(apart, 0)


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
    for i in parts(reference):
        for j in parts(samples):
            distances = squares(reference[i], samples[j])
            samples_in[j] |= (distances <= reference_radii[i, None]).any(axis=0)
            reference_in[i] |= (distances <= sample_radii[j]).any(axis=1)
    return samples_in.mean(), reference_in.mean()


def random_features(count: int, seed: int) -> np.ndarray:
    """Features from one distribution, generated in blocks, so that the peak memory is that of the features."""
    values = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 1000):
        number = seed + start // 1000
        values[start : start + 1000] = (features(1000, number) - 0.1 * number)[: count - start]
    return values


def peak_gib() -> float:
    """Peak memory of this process plus that of the GPU in GiB."""
    on_gpu = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 + on_gpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=int, default=10_000, help="real features (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=50_000, help="generated features (default: %(default)s)")
    arguments = parser.parse_args()
    reference, samples = random_features(arguments.reference, 0), random_features(arguments.samples, 100)
    before = peak_gib()
    values = {"ours": adm_precision_recall(samples, reference, NEIGHBOR)}
    beyond = peak_gib() - before

    def ours() -> None:
        adm_precision_recall(samples, reference, NEIGHBOR)

    def other() -> None:
        values["other"] = by_numpy(samples, reference)

    name = f"precision and recall, {arguments.reference:,} × {arguments.samples:,}"
    compare(name, ours, other, repeat=1, target=1.9)
    note(f"peak memory of ours without the features: {beyond:.2f} GiB, limit {LIMIT_GIB}")
    difference = max(abs(a - b) for a, b in zip(values["ours"], values["other"], strict=True))
    note(f"largest difference {difference:.1e}; both round to half precision")
    single = precision_recall(samples, reference, NEIGHBOR)
    for rounding, (precision, recall) in {"half": values["ours"], "single": single}.items():
        note(f"in {rounding} precision: precision {precision:.5f}, recall {recall:.5f}")


if __name__ == "__main__":
    main()
