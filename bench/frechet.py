"""Fréchet distance of 2048 features against ``scipy.linalg.sqrtm``, as clean-fid uses it, on one core.

python -m bench.frechet
"""

import numpy as np
from cleanfid.fid import frechet_distance as by_sqrtm
from threadpoolctl import threadpool_limits

from bench.timing import compare
from diffit.scoring.frechet import Gaussian, frechet_distance

WIDTH = 2048


def features(count: int, seed: int) -> np.ndarray:
    """Features with a decreasing spectrum like Inception's, float32 [count, 2048]."""
    generator = np.random.default_rng(seed)
    spread = np.arange(1, WIDTH + 1) ** -0.5
    return (generator.standard_normal((count, WIDTH)) * spread + 0.1 * seed).astype(np.float32)


def row(name: str, a: Gaussian, b: Gaussian, target: float) -> None:
    """Compare both on one pair of Gaussians and report the relative difference of their values."""
    values = {}

    def ours() -> None:
        values["ours"] = frechet_distance(a, b)

    def scipy() -> None:
        values["scipy"] = by_sqrtm(a.mean, a.covariance, b.mean, b.covariance)

    compare(name, ours, scipy, repeat=3, target=target)
    difference = abs(values["ours"] / values["scipy"] - 1)
    print(f"{'':<44} relative difference {difference:.1e}, limit 1e-06", flush=True)


def main() -> None:
    full = [Gaussian.of(features(5000, seed)) for seed in (0, 1)]
    few = [Gaussian.of(features(500, seed)) for seed in (0, 1)]
    stored = [Gaussian(g.mean, g.covariance, g.count) for g in few]
    with threadpool_limits(1):  # the matrix root gains little from threads, and idle threads would distort the ratio
        row("full rank, 5000 images", *full, target=10)
        row("rank-deficient, 500 images", *few, target=5)
        row("rank-deficient, covariances only", *stored, target=5)


if __name__ == "__main__":
    main()
