"""The processes of Song et al. 2021 that Table 5 trains, as Karras et al. 2022 formulate them (Table 1, VP and VE).

They differ from EDM's in what noise levels training draws, how a loss is weighted and how the network is
preconditioned; samples come from the same sampler.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from diffit.process.edm import EDM

BETA_MIN, BETA_MAX = 0.1, 20.0  # VP: the rate of its noise rises linearly between them
TIMESTEPS = 1000  # VP: what its network was told of time counts so many steps
EARLIEST = 1e-5  # VP: the smallest time of training
VE_SIGMAS = (0.02, 100.0)  # VE: the noise levels of training


def vp_sigma(t: float | np.ndarray) -> float | np.ndarray:
    """Noise level at a time between 0 and 1: sqrt(exp(½ β_d t² + β_min t) − 1)."""
    return np.sqrt(np.expm1((BETA_MAX - BETA_MIN) / 2 * t**2 + BETA_MIN * t))


def vp_time(sigma: Tensor) -> Tensor:
    """The inverse of :func:`vp_sigma`."""
    beta_d = BETA_MAX - BETA_MIN
    return ((BETA_MIN**2 + 2 * beta_d * torch.log1p(sigma.double() ** 2)).sqrt() - BETA_MIN) / beta_d


class Preconditioned(nn.Module):
    """D(x; sigma) = x + c_out F(c_in x; c_noise): the form that VP and VE share, whose skip is 1."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, sigma: Tensor, augment: Tensor | None = None) -> Tensor:
        """Noisy images [B, C, H, W], their noise levels [B], labels [B, A] or None -> denoised, like x."""
        dtype = next(self.net.parameters(), x).dtype
        s = sigma.to(x.dtype).reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
        c_out, c_in, c_noise = self.scales(s)
        f = self.net((c_in * x).to(dtype), c_noise.flatten().to(dtype), augment)  # [B, C, H, W]
        return x + c_out * f.to(x.dtype)

    def scales(self, sigma: Tensor) -> tuple[Tensor, Tensor | float, Tensor]:
        """c_out, c_in and c_noise at noise levels [B, 1, 1, 1]."""
        raise NotImplementedError


class VPDenoiser(Preconditioned):
    """The network predicts the noise from an image of variance 1, told the step of a thousand."""

    def scales(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return -sigma, 1 / (sigma**2 + 1).sqrt(), (TIMESTEPS - 1) * vp_time(sigma)


class VEDenoiser(Preconditioned):
    """The network sees the noisy image as it is, and half the logarithm's argument of its noise."""

    def scales(self, sigma: Tensor) -> tuple[Tensor, float, Tensor]:
        return sigma, 1.0, (sigma / 2).log()


@dataclass(frozen=True)
class SongLoss:
    """|D(y + sigma n; sigma) - y|^2 / sigma^2, whose noise levels a subclass draws."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """What is random in the loss of one image of this shape: float32 ``sigma`` [] and ``noise`` [C, H, W]."""
        sigma = self.sigma(rng.random())
        return {"sigma": np.array(sigma, np.float32), "noise": rng.standard_normal(shape, dtype=np.float32)}

    def sigma(self, uniform: float) -> float:
        """The noise level that a uniform number in [0, 1) stands for."""
        raise NotImplementedError

    def __call__(
        self, denoiser: nn.Module, images: Tensor, sigma: Tensor, noise: Tensor, augment: Tensor | None = None
    ) -> Tensor:
        """Images in [-1, 1] and noise [B, C, H, W], noise levels [B] -> each image's loss, summed over pixels [B]."""
        s = sigma.reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
        error = denoiser(images + s * noise, sigma, augment) - images  # [B, C, H, W]
        return ((error / s) ** 2).sum(dim=(1, 2, 3))


class VPLoss(SongLoss):
    """Times are uniform."""

    def sigma(self, uniform: float) -> float:
        return float(vp_sigma(EARLIEST + uniform * (1 - EARLIEST)))


class VELoss(SongLoss):
    """Logarithms of noise levels are uniform."""

    def sigma(self, uniform: float) -> float:
        low, high = VE_SIGMAS
        return low * math.exp(uniform * math.log(high / low))


class Song(EDM):
    """A process that differs from EDM's in its loss, its preconditioning and the noise levels that it knows.

    ``augment`` holds ``probability`` and ``xflip`` of the augmentation.
    """

    loss_class: type[SongLoss]
    denoiser_class: type[Preconditioned]
    sigmas: tuple[float, float]  # within which its network was trained

    def __init__(self, augment: dict):
        super().__init__(sigma_data=1.0, p_mean=0.0, p_std=1.0, augment=augment)
        self.loss = self.loss_class()

    def denoiser(self, net: nn.Module) -> Preconditioned:
        """The network within its preconditioning."""
        return self.denoiser_class(net)

    def sampler(self, settings: dict):
        """EDM's sampler, its noise levels within those that the network knows, as EDM samples such networks."""
        low, high = self.sigmas
        bounds = {"sigma_min": max(settings["sigma_min"], low), "sigma_max": min(settings["sigma_max"], high)}
        return super().sampler({**settings, **bounds})


class VP(Song):
    """Variance preserving."""

    loss_class, denoiser_class = VPLoss, VPDenoiser
    sigmas = (float(vp_sigma(EARLIEST)), float(vp_sigma(1.0)))


class VE(Song):
    """Variance exploding."""

    loss_class, denoiser_class = VELoss, VEDenoiser
    sigmas = VE_SIGMAS
