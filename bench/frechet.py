"""Fréchet distance at 2048 features against ``scipy.linalg.sqrtm``, the way clean-fid takes it.

python -m bench.frechet
"""

import numpy as np
from cleanfid.fid import frechet_distance as by_sqrtm

from bench.timing import compare
from diffit.frechet import Gaussian, frechet_distance

WIDTH = 2048


def features(count: int, seed: int) -> np.ndarray:
    """Features with the falling spectrum that Inception's have, float32 [count, 2048]."""
    generator = np.random.default_rng(seed)
    spread = np.arange(1, WIDTH + 1) ** -0.5
    return (generator.standard_normal((count, WIDTH)) * spread + 0.1 * seed).astype(np.float32)


def row(name: str, a: Gaussian, b: Gaussian, repeat: int) -> None:
    """Time the two ways on one pair, and say how far apart their values are."""
    values = {}

    def ours():
        values["ours"] = frechet_distance(a, b)

    def scipy():
        values["scipy"] = by_sqrtm(a.mean, a.covariance, b.mean, b.covariance)

    compare(name, ours, scipy, repeat)
    print(f"{'':<44} relative difference {abs(values['ours'] / values['scipy'] - 1):.1e}", flush=True)


def main() -> None:
    full = [Gaussian.of(features(5000, seed)) for seed in (0, 1)]
    few = [Gaussian.of(features(500, seed)) for seed in (0, 1)]
    stored = [Gaussian(g.mean, g.covariance, g.count) for g in few]
    row("full rank, 5000 images", *full, repeat=1)
    row("rank-deficient, 500 images", *few, repeat=1)
    row("rank-deficient, covariances alone", *stored, repeat=1)


if __name__ == "__main__":
    main()
