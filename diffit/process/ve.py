"""Variance exploding diffusion of Song et al. 2021: the second column of EDM's Table 1, which Table 5 trains."""

import math

from torch import Tensor

from diffit.process.score_sde import Preconditioned, Song, SongLoss

SIGMAS = (0.02, 100.0)  # the noise levels of training


class VEDenoiser(Preconditioned):
    """The network sees the noisy image as it is, and half the logarithm's argument of its noise."""

    def scales(self, sigma: Tensor) -> tuple[Tensor, float, Tensor]:
        return sigma, 1.0, (sigma / 2).log()


class VELoss(SongLoss):
    """Logarithms of noise levels are uniform."""

    def sigma(self, uniform: float) -> float:
        low, high = SIGMAS
        return low * math.exp(uniform * math.log(high / low))


class VE(Song):
    """The whole process; see :class:`Song`."""

    loss_class, denoiser_class = VELoss, VEDenoiser
    sigmas = SIGMAS
