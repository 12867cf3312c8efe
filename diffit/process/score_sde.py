"""What the processes of Song et al. 2021 share, as Karras et al. 2022 formulate them (Table 1, VP and VE).

They differ from EDM's in what noise levels training draws, how a loss is weighted and how the network is
preconditioned; samples come from the same sampler.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from diffit.process.edm import EDM


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

    def sampler_settings(self, settings: dict) -> dict:
        """The settings with noise levels within those that the network knows, as EDM samples such networks."""
        low, high = self.sigmas
        return {
            **settings,
            "sigma_min": max(settings["sigma_min"], low),
            "sigma_max": min(settings["sigma_max"], high),
        }
