"""Distances between two sets of features in float64: Fréchet distance (FID) and kernel distance (KID).

FID = |μ₁ − μ₂|² + Tr C₁ + Tr C₂ − 2 Tr (C₁C₂)^½ with the mean μ and covariance C of each set (Heusel et al. 2017). No
matrix root is computed: for any R with C₁ = RᵀR, Tr (C₁C₂)^½ is the sum of the square roots of the eigenvalues of the
symmetric matrix R C₂ Rᵀ.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas, lapack

from diffit.cli import UserError

_ROWS = 4096  # rows that are converted to float64 at a time


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and covariance (divisor count − 1) of ``count`` feature vectors.

    If there are fewer vectors than features, ``root`` holds the centred vectors with ``root.T @ root == covariance``.
    Distances are then cheaper and more exact. Statistics that were stored without the features have no root.
    Raises :class:`UserError` for fewer than 2 vectors, shapes that do not match, and values that are not finite.
    """

    mean: np.ndarray  # float64 [d]
    covariance: np.ndarray  # float64 [d, d]
    count: int
    root: np.ndarray | None = None  # float64 [r, d], r < d

    def __post_init__(self):
        d = len(self.mean)
        if self.count < 2:
            raise UserError(f"{self.count} image has no covariance; give at least 2 images")
        if self.mean.shape != (d,) or self.covariance.shape != (d, d):
            raise UserError(
                f"a mean of shape {self.mean.shape} does not match a covariance of shape {self.covariance.shape}; "
                "make the statistics again"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise UserError("the statistics contain NaN or infinity; measure these images again")

    @classmethod
    def of(cls, features: np.ndarray) -> "Gaussian":
        """Fit a Gaussian to features [n, d] of any float type, n ≥ 2."""
        n, d = features.shape
        if n < 2:
            raise UserError(f"{n} image has no covariance; give at least 2 images")
        mean = features.mean(axis=0, dtype=np.float64)  # d
        if n < d:
            root = (features - mean) / np.sqrt(n - 1)  # n d
            return cls(mean, root.T @ root, n, root)
        scatter = np.zeros((d, d))
        for start in range(0, n, _ROWS):
            centered = features[start : start + _ROWS] - mean
            scatter += centered.T @ centered
        return cls(mean, scatter / (n - 1), n)


@dataclass
class Moments:
    """Mean and scatter matrix of features that are added in parts, so that a data set need not fit into memory."""

    mean: np.ndarray  # float64 [d]
    scatter: np.ndarray  # float64 [d, d], sum of the outer products of deviations from the mean
    count: int = 0

    @classmethod
    def empty(cls, width: int) -> "Moments":
        """Moments of no vectors with ``width`` features."""
        return cls(np.zeros(width), np.zeros((width, width)))

    def add(self, features: np.ndarray) -> None:
        """Add features [n, d] of any float type."""
        for start in range(0, len(features), _ROWS):
            rows = features[start : start + _ROWS]
            mean = rows.mean(axis=0, dtype=np.float64)
            centered = rows - mean
            self.merge(Moments(mean, centered.T @ centered, len(rows)))

    def merge(self, other: "Moments") -> None:
        """Add the vectors behind ``other`` (Chan et al. 1979). Raises :class:`UserError` for another width."""
        _same_width(self, other)
        if not other.count:
            return
        count, shift = self.count + other.count, other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(shift, shift) * (self.count * other.count / count)
        self.mean = self.mean + shift * (other.count / count)
        self.count = count

    def gaussian(self) -> Gaussian:
        """The Gaussian. Raises :class:`UserError` for fewer than 2 vectors and for values that are not finite."""
        return Gaussian(self.mean, self.scatter / max(self.count - 1, 1), self.count)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Fréchet distance of two Gaussians; for Inception's features it is FID.

    Raises :class:`UserError` if their numbers of features differ.
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
    """Tr (C_a C_b)^½, computed in the cheapest way that the ranks of both covariances allow."""
    if a.root is not None and b.root is not None:
        # R_a C_b R_aᵀ = M Mᵀ with M = R_a R_bᵀ, so the trace is the sum of the singular values of M.
        return np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    if a.root is None and b.root is not None:
        a, b = b, a
    product = _product(a, b.covariance)  # r r
    # Rounding makes eigenvalues that should be zero slightly negative or positive.
    return np.sqrt(_positive(np.linalg.eigvalsh(product))).sum()


def _product(a: Gaussian, covariance: np.ndarray) -> np.ndarray:
    """R C Rᵀ [r, r] with RᵀR = covariance of ``a``; R is its root, its Cholesky factor or its scaled eigenvectors."""
    root = a.root
    if root is None:
        lower, failed = lapack.dpotrf(a.covariance.T, lower=1, clean=1)
        if not failed:  # triangular products take half the time
            right = blas.dtrmm(1.0, lower, covariance.T, side=1, lower=1)
            return blas.dtrmm(1.0, lower, right, lower=1, trans_a=1, overwrite_b=1)
        values, vectors = np.linalg.eigh(a.covariance)
        kept = _positive(values)  # the last ones, because eigenvalues are in ascending order
        root = (vectors[:, len(values) - len(kept) :] * np.sqrt(kept)).T
    return root @ covariance @ root.T


def _positive(eigenvalues: np.ndarray) -> np.ndarray:
    """The eigenvalues, given in ascending order, that are above rounding error."""
    return eigenvalues[eigenvalues > eigenvalues.max(initial=0) * len(eigenvalues) * np.finfo(np.float64).eps]


def kid(a: np.ndarray, b: np.ndarray, subset_size: int = 1000, subsets: int = 100, seed: int = 0) -> float:
    """Kernel distance of features [n, d] and [m, d]: unbiased estimate of MMD², averaged over random subsets.

    The kernel is (x·y/d + 1)³ (Bińkowski et al. 2018). Each subset has min(``subset_size``, n, m) vectors of each set,
    drawn without replacement. Raises :class:`UserError` for different widths and for fewer than 2 images.
    """
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"features of width {a.shape[1]} and {b.shape[1]} cannot be compared; measure both with one network"
        )
    d, m = a.shape[1], min(len(a), len(b), subset_size)
    if m < 2:
        raise UserError(f"subsets of {m} image have no kernel distance; give at least 2 images per set")
    generator = np.random.Generator(np.random.Philox(seed))
    total = 0.0
    for _ in range(subsets):
        x = b[generator.choice(len(b), m, replace=False)].astype(np.float64)
        y = a[generator.choice(len(a), m, replace=False)].astype(np.float64)
        within = (x @ x.T / d + 1) ** 3 + (y @ y.T / d + 1) ** 3  # m m
        between = (x @ y.T / d + 1) ** 3
        total += (within.sum() - np.trace(within)) / (m * (m - 1)) - 2 * between.mean()
    return float(total / subsets)
