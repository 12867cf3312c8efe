"""EDM (Karras et al. 2022): preconditioning, training loss and Heun's sampler.

c_skip = sigma_data² / (sigma² + sigma_data²),  c_out = sigma sigma_data / sqrt(sigma² + sigma_data²)
c_in = 1 / sqrt(sigma² + sigma_data²),  c_noise = ln(sigma) / 4
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from diffit.process.augment import LABELS, AugmentPipe


class Denoiser(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) for a network F (EDM, Eq. 7 and Table 1).

    The preconditioning uses the dtype of x, also under autocast; F uses the dtype of its parameters.
    """

    def __init__(self, net: nn.Module, sigma_data: float):
        super().__init__()
        self.net = net
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, augment: Tensor | None = None) -> Tensor:
        """Noisy images [B, C, H, W], noise levels [B], augmentation labels [B, A] or None -> denoised images like x."""
        dtype = next(self.net.parameters(), x).dtype
        s = sigma.to(x.dtype).reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
        total = s**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = s * self.sigma_data / total.sqrt()
        c_in = 1 / total.sqrt()
        c_noise = s.flatten().log() / 4
        labels = None if augment is None else augment.to(dtype)
        f = self.net((c_in * x).to(dtype), c_noise.to(dtype), labels)  # [B, C, H, W]
        return c_skip * x + c_out * f.to(x.dtype)


@dataclass(frozen=True)
class EDMLoss:
    """lambda(sigma) |D(y + sigma n; sigma) - y|² with n ~ N(0, I) (EDM, Eq. 8).

    ln(sigma) ~ N(p_mean, p_std²), and lambda(sigma) = (sigma² + sigma_data²) / (sigma sigma_data)² = 1 / c_out².
    """

    p_mean: float
    p_std: float
    sigma_data: float

    def __post_init__(self):
        for key in ("p_std", "sigma_data"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} {getattr(self, key)} is not positive")

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The random values in the loss of one image of this shape: float32 ``sigma`` [] and ``noise`` [C, H, W]."""
        sigma = np.exp(self.p_mean + self.p_std * rng.standard_normal())
        return {"sigma": np.array(sigma, np.float32), "noise": rng.standard_normal(shape, dtype=np.float32)}

    def __call__(
        self, denoiser: Denoiser, images: Tensor, sigma: Tensor, noise: Tensor, augment: Tensor | None = None
    ) -> Tensor:
        """Images in [-1, 1] and noise [B, C, H, W], noise levels [B] -> loss per image, summed over pixels [B]."""
        s = sigma.reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
        weight = (s**2 + self.sigma_data**2) / (s * self.sigma_data) ** 2
        error = denoiser(images + s * noise, sigma, augment) - images  # [B, C, H, W]
        return (weight * error**2).sum(dim=(1, 2, 3))


def sigma_schedule(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Noise levels of a sampler (EDM, Eq. 5): float64 [steps + 1].

    sigma_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho for i < N = steps,
    sigma_N = 0
    """
    ramp = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    root_max, root_min = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (root_max + ramp * (root_min - root_max)) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


@dataclass(frozen=True)
class HeunSampler:
    """EDM's second-order sampler: Algorithm 1 if ``s_churn`` is 0, otherwise the stochastic Algorithm 2.

    Raises ValueError for invalid settings.
    """

    steps: int
    sigma_min: float
    sigma_max: float
    rho: float
    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float | None = None  # None for no upper limit
    s_noise: float = 1.0

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps {self.steps} is not positive")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} must satisfy 0 < min < max")
        if self.rho <= 0:
            raise ValueError(f"rho {self.rho} is not positive")
        if self.s_churn < 0:
            raise ValueError(f"s_churn {self.s_churn} is negative")

    @classmethod
    def of(cls, process: "EDM", settings: dict) -> "HeunSampler":
        """Build a sampler from the settings of the configuration; keys of no field are ignored."""
        own = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in settings.items() if key in own})

    @staticmethod
    def passes(process: dict, settings: dict) -> int:
        """Forward passes of the network per image: two per step, and one in the last step, which is an Euler step."""
        return 2 * settings["steps"] - 1

    @property
    def stochastic(self) -> bool:
        """Whether each step adds new noise."""
        return self.s_churn > 0

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        draw_noise: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Standard normal noise [B, C, H, W] -> samples, float64 [B, C, H, W], in the range of the training images.

        Args:
            denoiser: D(x; sigma) for float64 images [B, C, H, W] and noise levels [B].
            noise: the initial noise.
            draw_noise: returns new standard normal noise like ``noise``. A stochastic sampler calls it once per step,
                even if sigma is outside [s_min, s_max] and no noise is added, so the k-th call belongs to step k.
        """
        assert not self.stochastic or draw_noise is not None, "a stochastic sampler needs draw_noise"
        s_max = math.inf if self.s_max is None else self.s_max
        sigmas = sigma_schedule(self.steps, self.sigma_min, self.sigma_max, self.rho).tolist()
        x = noise.double() * sigmas[0]  # [B, C, H, W]
        for sigma, sigma_next in itertools.pairwise(sigmas):
            sigma_hat = sigma
            if self.stochastic:
                churn = draw_noise().double()
                if self.s_min <= sigma <= s_max:
                    sigma_hat = sigma * (1 + min(self.s_churn / self.steps, math.sqrt(2) - 1))
                    x = x + math.sqrt(sigma_hat**2 - sigma**2) * self.s_noise * churn
            slope = _slope(denoiser, x, sigma_hat)
            x_next = x + (sigma_next - sigma_hat) * slope  # Euler step
            if sigma_next > 0:
                mean_slope = (slope + _slope(denoiser, x_next, sigma_next)) / 2
                x_next = x + (sigma_next - sigma_hat) * mean_slope
            x = x_next
        return x


def _slope(denoiser: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float) -> Tensor:
    """dx/dsigma = (x - D(x; sigma)) / sigma, the probability flow ODE."""
    return (x - denoiser(x, x.new_full((len(x),), sigma))) / sigma


class EDM:
    """The EDM process: random values of training, training loss, and the denoiser for samplers.

    Args:
        sigma_data: standard deviation of the training images.
        p_mean: mean of ln(sigma) in training.
        p_std: standard deviation of ln(sigma) in training.
        augment: ``probability`` and ``xflip`` of the :class:`AugmentPipe`.
        xflip: whether half of the training images are mirrored before the augmentation, without a label.

    Raises ValueError for values that are out of range.
    """

    def __init__(self, sigma_data: float, p_mean: float, p_std: float, augment: dict, xflip: bool = False):
        self.sigma_data, self.xflip = sigma_data, xflip
        self.loss = EDMLoss(p_mean, p_std, sigma_data)
        self.pipe = AugmentPipe(augment["probability"], augment["xflip"])

    @property
    def augment_labels(self) -> int:
        """Number of augmentation labels of the network: 0 without augmentation."""
        return LABELS if self.pipe.active else 0

    def denoiser(self, net: nn.Module) -> Denoiser:
        """The network with its preconditioning."""
        return Denoiser(net, self.sigma_data)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """All random values in training on one image of this shape [C, H, W]."""
        drawn = self.loss.draw(rng, shape)
        return {**drawn, "augment": self.pipe.draw(rng)} if self.pipe.active else drawn

    def losses(self, denoiser: nn.Module, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Images in [-1, 1] [B, C, H, W] and their stacked random values -> loss per image, summed over pixels [B]."""
        labels = None
        if self.pipe.active:
            images, labels = self.pipe(images, drawn["augment"])
        return self.loss(denoiser, images, drawn["sigma"], drawn["noise"], labels)

    @staticmethod
    def loss_per_value(loss: float, shape: tuple[int, ...]) -> float:
        """Convert a loss of an image of this shape [C, H, W] to the logged unit, the mean over its values."""
        return loss / math.prod(shape)

    def sampler_settings(self, settings: dict) -> dict:
        """The settings that a sampler of this process uses: the given ones."""
        return settings

    @staticmethod
    def guided(denoiser: Denoiser, labels: Tensor, settings: dict) -> Denoiser:
        """The denoiser that a sampler calls; this process has no labels and no guidance."""
        return denoiser
