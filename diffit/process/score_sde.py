"""What the VP and VE processes of Song et al. 2021 share, in the formulation of EDM (Karras et al. 2022, Table 1).

They differ from EDM in the distribution of noise levels in training, the loss weight, and the preconditioning. The
sampler is the same.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from diffit.process.edm import EDM


class ScoreSDEDenoiser(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) with c_skip = 1, for a network F."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, sigma: Tensor, augment: Tensor | None = None) -> Tensor:
        """Noisy images [B, C, H, W], noise levels [B], augmentation labels [B, A] or None -> denoised images like x."""
        dtype = next(self.net.parameters(), x).dtype
        s = sigma.to(x.dtype).reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
        c_out, c_in, c_noise = self.scales(s)
        labels = None if augment is None else augment.to(dtype)
        f = self.net((c_in * x).to(dtype), c_noise.flatten().to(dtype), labels)  # [B, C, H, W]
        return x + c_out * f.to(x.dtype)

    def scales(self, sigma: Tensor) -> tuple[Tensor, Tensor | float, Tensor]:
        """c_out, c_in and c_noise at noise levels [B, 1, 1, 1]."""
        raise NotImplementedError


@dataclass(frozen=True)
class ScoreSDELoss:
    """|D(y + sigma n; sigma) - y|² / sigma² with n ~ N(0, I); subclasses define the distribution of sigma."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The random values in the loss of one image of this shape: float32 ``sigma`` [] and ``noise`` [C, H, W]."""
        sigma = self.sigma(rng.random())
        return {"sigma": np.array(sigma, np.float32), "noise": rng.standard_normal(shape, dtype=np.float32)}

    def sigma(self, uniform: float) -> float:
        """The noise level for a uniform random number in [0, 1): the inverse of its cumulative distribution."""
        raise NotImplementedError

    def __call__(
        self, denoiser: nn.Module, images: Tensor, sigma: Tensor, noise: Tensor, augment: Tensor | None = None
    ) -> Tensor:
        """Images in [-1, 1] and noise [B, C, H, W], noise levels [B] -> loss per image, summed over pixels [B]."""
        s = sigma.reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
        error = denoiser(images + s * noise, sigma, augment) - images  # [B, C, H, W]
        return ((error / s) ** 2).sum(dim=(1, 2, 3))


class ScoreSDE(EDM):
    """A process with its own loss, preconditioning and range of noise levels.

    Args:
        augment: ``probability`` and ``xflip`` of the :class:`~diffit.process.augment.AugmentPipe`.
        xflip: whether half of the training images are mirrored before the augmentation, without a label.
    """

    loss_class: type[ScoreSDELoss]
    denoiser_class: type[ScoreSDEDenoiser]
    sigma_range: tuple[float, float]  # the smallest and largest noise level in training

    def __init__(self, augment: dict, xflip: bool = False):
        super().__init__(sigma_data=1.0, p_mean=0.0, p_std=1.0, augment=augment, xflip=xflip)
        self.loss = self.loss_class()

    def denoiser(self, net: nn.Module) -> ScoreSDEDenoiser:
        """The network with its preconditioning."""
        return self.denoiser_class(net)

    def sampler_settings(self, settings: dict) -> dict:
        """A sampler's settings with sigma_min and sigma_max clipped to the training range, as in EDM."""
        low, high = self.sigma_range
        return {
            **settings,
            "sigma_min": max(settings["sigma_min"], low),
            "sigma_max": min(settings["sigma_max"], high),
        }
