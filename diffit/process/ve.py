"""Variance exploding (VE) diffusion of Song et al. 2021, as in EDM's Table 1, column VE.

    c_skip = 1,  c_out = sigma,  c_in = 1,  c_noise = ln(sigma / 2)

Table 5 trains networks with it.
"""

import math

from torch import Tensor

from diffit.process.score_sde import ScoreSDE, ScoreSDEDenoiser, ScoreSDELoss

SIGMA_MIN, SIGMA_MAX = 0.02, 100.0  # range of the noise levels in training


class VEDenoiser(ScoreSDEDenoiser):
    """D(x; sigma) = x + sigma F(x; ln(sigma / 2))."""

    def scales(self, sigma: Tensor) -> tuple[Tensor, float, Tensor]:
        """c_out = sigma, c_in = 1, c_noise = ln(sigma / 2)."""
        return sigma, 1.0, (sigma / 2).log()


class VELoss(ScoreSDELoss):
    """Training loss with ln(sigma) ~ U(ln sigma_min, ln sigma_max)."""

    def sigma(self, uniform: float) -> float:
        """sigma = sigma_min (sigma_max / sigma_min)^u for u in [0, 1)."""
        return SIGMA_MIN * math.exp(uniform * math.log(SIGMA_MAX / SIGMA_MIN))


class VE(ScoreSDE):
    """The VE process; see :class:`ScoreSDE`."""

    loss_class, denoiser_class = VELoss, VEDenoiser
    sigma_range = (SIGMA_MIN, SIGMA_MAX)
