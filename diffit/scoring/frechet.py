"""Distances between two sets of features: Fréchet (FID) and kernel (KID), in float64.

FID = |μ₁ − μ₂|² + Tr C₁ + Tr C₂ − 2 Tr (C₁C₂)^½, between Gaussians with the sets' means and covariances (Heusel
et al. 2017). Only the trace of the root is wanted, so no matrix root is ever taken: with any R such that C₁ = RᵀR,
the trace is the sum of the square roots of the eigenvalues of the symmetric R C₂ Rᵀ.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas, lapack

from diffit.cli import UserError

_ROWS = 4096  # rows that are held in float64 at a time


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and covariance (divisor count − 1) of ``count`` feature vectors.

    ``root`` is kept while there are fewer vectors than features: the covariance is then ``root.T @ root``, which
    makes distances cheaper and more exact. It follows from the features; give none with stored statistics.
    """

    mean: np.ndarray  # float64 [d]
    covariance: np.ndarray  # float64 [d, d]
    count: int
    root: np.ndarray | None = None  # float64 [r, d], r < d

    def __post_init__(self):
        d = len(self.mean)
        if self.count < 2:
            raise UserError(f"{self.count} image has no covariance; a distance needs at least 2 images")
        if self.mean.shape != (d,) or self.covariance.shape != (d, d):
            raise UserError(f"a mean of {self.mean.shape} does not go with a covariance of {self.covariance.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise UserError("the statistics hold NaN or infinity; measure these images again")

    @classmethod
    def of(cls, features: np.ndarray) -> "Gaussian":
        """The Gaussian of features [n, d] of any float type, n ≥ 2."""
        n, d = features.shape
        if n < 2:
            raise UserError(f"{n} image has no covariance; a distance needs at least 2 images")
        mean = features.mean(axis=0, dtype=np.float64)  # d
        if n < d:
            root = (features - mean) / np.sqrt(n - 1)  # n d
            return cls(mean, root.T @ root, n, root)
        scatter = np.zeros((d, d))
        for start in range(0, n, _ROWS):
            centered = features[start : start + _ROWS] - mean
            scatter += centered.T @ centered
        return cls(mean, scatter / (n - 1), n)

    def merge(self, other: "Gaussian") -> "Gaussian":
        """The Gaussian of both sets together, equal to that of one pass over them (Chan et al. 1979)."""
        _same_width(self, other)
        n = self.count + other.count
        shift = other.mean - self.mean
        a, b = (self.count - 1) / (n - 1), (other.count - 1) / (n - 1)
        c = self.count * other.count / n / (n - 1)
        root = None
        if self.root is not None and other.root is not None:
            rows = [np.sqrt(a) * self.root, np.sqrt(b) * other.root, np.sqrt(c) * shift[None]]
            root = np.concatenate(rows) if sum(map(len, rows)) < len(shift) else None
        return Gaussian(
            mean=self.mean + shift * (other.count / n),
            covariance=a * self.covariance + b * other.covariance + c * np.outer(shift, shift),
            count=n,
            root=root,
        )


@dataclass
class Moments:
    """Mean and scatter of features that arrive in shards, of any size, so that a data set is never held in memory."""

    mean: np.ndarray  # float64 [d]
    scatter: np.ndarray  # float64 [d, d]: sum of outer products of the deviations from the mean
    count: int = 0

    @classmethod
    def empty(cls, width: int) -> "Moments":
        return cls(np.zeros(width), np.zeros((width, width)))

    def add(self, features: np.ndarray) -> None:
        """Take in features [n, d] of any float type, ``_ROWS`` at a time."""
        for start in range(0, len(features), _ROWS):
            rows = features[start : start + _ROWS]
            mean = rows.mean(axis=0, dtype=np.float64)
            centered = rows - mean
            self.merge(Moments(mean, centered.T @ centered, len(rows)))

    def merge(self, other: "Moments") -> None:
        """Take in what ``other`` has seen (Chan et al. 1979)."""
        _same_width(self, other)
        if not other.count:
            return
        count, shift = self.count + other.count, other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(shift, shift) * (self.count * other.count / count)
        self.mean = self.mean + shift * (other.count / count)
        self.count = count

    def gaussian(self) -> Gaussian:
        """Raises :class:`UserError` for fewer than 2 features, or where one was not finite."""
        return Gaussian(self.mean, self.scatter / max(self.count - 1, 1), self.count)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Fréchet distance of two Gaussians: FID, where the features are Inception's.

    Raises :class:`UserError` where the two differ in width.
    """
    _same_width(a, b)
    apart = np.square(a.mean - b.mean).sum()
    return float(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * _trace_of_root(a, b))


def _same_width(a: "Gaussian | Moments", b: "Gaussian | Moments") -> None:
    if len(a.mean) != len(b.mean):
        raise UserError(
            f"features of width {len(a.mean)} and {len(b.mean)} cannot be compared; measure both with one network"
        )


def _trace_of_root(a: Gaussian, b: Gaussian) -> float:
    """Tr (C_a C_b)^½ by the cheapest way that the two ranks allow."""
    if a.root is not None and b.root is not None:
        # R_a C_b R_aᵀ = M Mᵀ with M = R_a R_bᵀ: the singular values of M, its nuclear norm.
        return np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    if a.root is None and b.root is not None:
        a, b = b, a
    product = _product(a, b.covariance)  # r r
    # Rounding leaves the eigenvalues that are zero in truth a little below or above it.
    return np.sqrt(_positive(np.linalg.eigvalsh(product))).sum()


def _product(a: Gaussian, covariance: np.ndarray) -> np.ndarray:
    """R C Rᵀ [r, r], where RᵀR is the covariance of ``a``: its rows, Cholesky's factor or scaled eigenvectors."""
    root = a.root
    if root is None:
        lower, failed = lapack.dpotrf(a.covariance.T, lower=1, clean=1)
        if not failed:  # a triangular R halves the work of both products
            right = blas.dtrmm(1.0, lower, covariance.T, side=1, lower=1)
            return blas.dtrmm(1.0, lower, right, lower=1, trans_a=1, overwrite_b=1)
        values, vectors = np.linalg.eigh(a.covariance)
        kept = _positive(values)  # the last ones: eigenvalues ascend
        root = (vectors[:, len(values) - len(kept) :] * np.sqrt(kept)).T
    return root @ covariance @ root.T


def _positive(eigenvalues: np.ndarray) -> np.ndarray:
    """Those of ascending eigenvalues that stand above rounding."""
    return eigenvalues[eigenvalues > eigenvalues.max(initial=0) * len(eigenvalues) * np.finfo(np.float64).eps]


def kid(a: np.ndarray, b: np.ndarray, subset_size: int = 1000, subsets: int = 100, seed: int = 0) -> float:
    """Kernel distance of two sets of features [n, d] and [m, d]: unbiased squared MMD, mean over random subsets.

    The kernel is (x·y/d + 1)³ (Bińkowski et al. 2018). Subsets have ``subset_size`` vectors of each set, or as many
    as the smaller set has; they are drawn without replacement from a generator of this ``seed``.
    """
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"features of width {a.shape[1]} and {b.shape[1]} cannot be compared; measure both with one network"
        )
    d, m = a.shape[1], min(len(a), len(b), subset_size)
    if m < 2:
        raise UserError(f"subsets of {m} image have no kernel distance; give at least 2 images a set")
    generator = np.random.Generator(np.random.Philox(seed))
    total = 0.0
    for _ in range(subsets):
        x = b[generator.choice(len(b), m, replace=False)].astype(np.float64)
        y = a[generator.choice(len(a), m, replace=False)].astype(np.float64)
        within = (x @ x.T / d + 1) ** 3 + (y @ y.T / d + 1) ** 3  # m m
        between = (x @ y.T / d + 1) ** 3
        total += (within.sum() - np.trace(within)) / (m * (m - 1)) - 2 * between.mean()
    return float(total / subsets)
