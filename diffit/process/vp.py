"""Variance preserving (VP) diffusion of Song et al. 2021, as in EDM's Table 1, column VP.

    sigma(t) = sqrt(exp(beta_d t² / 2 + beta_min t) - 1),  beta_d = beta_max - beta_min,  0 < t <= 1
    c_skip = 1,  c_out = -sigma,  c_in = 1 / sqrt(sigma² + 1),  c_noise = (M - 1) t(sigma),  M = 1000

Table 5 trains networks with it.
"""

import numpy as np
import torch
from torch import Tensor

from diffit.process.score_sde import ScoreSDE, ScoreSDEDenoiser, ScoreSDELoss

BETA_MIN, BETA_MAX = 0.1, 20.0  # noise rates at t = 0 and t = 1; the rate increases linearly
TIMESTEPS = 1000  # M
T_MIN = 1e-5  # smallest time in training


def sigma_of_time(t: float | np.ndarray) -> float | np.ndarray:
    """sigma(t) = sqrt(exp(beta_d t² / 2 + beta_min t) - 1), for times in [0, 1]."""
    return np.sqrt(np.expm1((BETA_MAX - BETA_MIN) / 2 * t**2 + BETA_MIN * t))


def time_of_sigma(sigma: Tensor) -> Tensor:
    """t(sigma) = (sqrt(beta_min² + 2 beta_d ln(1 + sigma²)) - beta_min) / beta_d, the inverse of sigma(t); float64."""
    beta_d = BETA_MAX - BETA_MIN
    return ((BETA_MIN**2 + 2 * beta_d * torch.log1p(sigma.double() ** 2)).sqrt() - BETA_MIN) / beta_d


class VPDenoiser(ScoreSDEDenoiser):
    """D(x; sigma) = x - sigma F(x / sqrt(sigma² + 1); 999 t(sigma)): the network predicts the noise."""

    def scales(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_out = -sigma, c_in = 1 / sqrt(sigma² + 1), c_noise = (M - 1) t(sigma)."""
        return -sigma, 1 / (sigma**2 + 1).sqrt(), (TIMESTEPS - 1) * time_of_sigma(sigma)


class VPLoss(ScoreSDELoss):
    """Training loss with t ~ U(t_min, 1)."""

    def sigma(self, uniform: float) -> float:
        """sigma(t) at t = t_min + u (1 - t_min) for u in [0, 1)."""
        return float(sigma_of_time(T_MIN + uniform * (1 - T_MIN)))


class VP(ScoreSDE):
    """The VP process; see :class:`ScoreSDE`."""

    loss_class, denoiser_class = VPLoss, VPDenoiser
    sigma_range = (float(sigma_of_time(T_MIN)), float(sigma_of_time(1.0)))
