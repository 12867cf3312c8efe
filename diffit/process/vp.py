"""Variance preserving diffusion of Song et al. 2021: the first column of EDM's Table 1, which Table 5 trains."""

import numpy as np
import torch
from torch import Tensor

from diffit.process.score_sde import Preconditioned, Song, SongLoss

BETA_MIN, BETA_MAX = 0.1, 20.0  # the rate of its noise rises linearly between them
TIMESTEPS = 1000  # what its network is told of time counts so many steps
EARLIEST = 1e-5  # the smallest time of training


def sigma_at(t: float | np.ndarray) -> float | np.ndarray:
    """Noise level at a time between 0 and 1: sqrt(exp(½ β_d t² + β_min t) − 1)."""
    return np.sqrt(np.expm1((BETA_MAX - BETA_MIN) / 2 * t**2 + BETA_MIN * t))


def time_of(sigma: Tensor) -> Tensor:
    """The inverse of :func:`sigma_at`."""
    beta_d = BETA_MAX - BETA_MIN
    return ((BETA_MIN**2 + 2 * beta_d * torch.log1p(sigma.double() ** 2)).sqrt() - BETA_MIN) / beta_d


class VPDenoiser(Preconditioned):
    """The network predicts the noise from an image of variance 1, told the step of a thousand."""

    def scales(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return -sigma, 1 / (sigma**2 + 1).sqrt(), (TIMESTEPS - 1) * time_of(sigma)


class VPLoss(SongLoss):
    """Times are uniform."""

    def sigma(self, uniform: float) -> float:
        return float(sigma_at(EARLIEST + uniform * (1 - EARLIEST)))


class VP(Song):
    """The whole process; see :class:`Song`."""

    loss_class, denoiser_class = VPLoss, VPDenoiser
    sigmas = (float(sigma_at(EARLIEST)), float(sigma_at(1.0)))
