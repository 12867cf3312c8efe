"""Diffusion as Karras et al. 2022 ("EDM") formulate it: preconditioning, training loss, Heun's sampler."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from diffit.process.augment import LABELS, AugmentPipe


class Denoiser(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise): a network F within EDM's preconditioning (Table 1).

    The preconditioning works in the precision of x, also under autocast; F works in the precision of its parameters.
    """

    def __init__(self, net: nn.Module, sigma_data: float):
        super().__init__()
        self.net = net
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, augment: Tensor | None = None) -> Tensor:
        """Noisy images [B, C, H, W], their noise levels [B], labels [B, A] or None -> denoised, like x."""
        dtype = next(self.net.parameters(), x).dtype
        s = sigma.to(x.dtype).reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
        total = s**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = s * self.sigma_data / total.sqrt()
        c_in = 1 / total.sqrt()
        c_noise = s.flatten().log() / 4
        f = self.net((c_in * x).to(dtype), c_noise.to(dtype), augment)  # [B, C, H, W]
        return c_skip * x + c_out * f.to(x.dtype)


@dataclass(frozen=True)
class EDMLoss:
    """Weighted squared error of the denoised image (EDM, Eq. 8): lambda(sigma) |D(y + sigma n; sigma) - y|^2.

    ln(sigma) is normal with mean ``p_mean`` and standard deviation ``p_std``; lambda makes the network's effective
    weight 1 at every noise level.
    """

    p_mean: float
    p_std: float
    sigma_data: float

    def __post_init__(self):
        for key in ("p_std", "sigma_data"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} {getattr(self, key)} is not positive")

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """What is random in the loss of one image of this shape: float32 ``sigma`` [] and ``noise`` [C, H, W]."""
        sigma = np.exp(self.p_mean + self.p_std * rng.standard_normal())
        return {"sigma": np.array(sigma, np.float32), "noise": rng.standard_normal(shape, dtype=np.float32)}

    def __call__(
        self, denoiser: Denoiser, images: Tensor, sigma: Tensor, noise: Tensor, augment: Tensor | None = None
    ) -> Tensor:
        """Images in [-1, 1] and noise [B, C, H, W], noise levels [B] -> each image's loss, summed over pixels [B]."""
        s = sigma.reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
        weight = (s**2 + self.sigma_data**2) / (s * self.sigma_data) ** 2
        error = denoiser(images + s * noise, sigma, augment) - images  # [B, C, H, W]
        return (weight * error**2).sum(dim=(1, 2, 3))


def sigma_schedule(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Noise levels of a sampler (EDM, Eq. 5) from ``sigma_max`` down to ``sigma_min``, then 0: float64 [steps + 1]."""
    ramp = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    root_max, root_min = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (root_max + ramp * (root_min - root_max)) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


@dataclass(frozen=True)
class HeunSampler:
    """EDM's second-order sampler: Algorithm 1 where ``s_churn`` is 0, otherwise the stochastic Algorithm 2.

    A sampler holds settings only. Raises ValueError for those that make no schedule.
    """

    steps: int
    sigma_min: float
    sigma_max: float
    rho: float
    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float | None = None  # None: no upper limit
    s_noise: float = 1.0

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps {self.steps} is not positive")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} must be positive and rise")
        if self.rho <= 0:
            raise ValueError(f"rho {self.rho} is not positive")
        if self.s_churn < 0:
            raise ValueError(f"s_churn {self.s_churn} is negative")

    @classmethod
    def of(cls, process: "EDM", settings: dict) -> "HeunSampler":
        """The sampler that a configuration describes; other keys are ignored."""
        own = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in settings.items() if key in own})

    @staticmethod
    def passes(process: dict, settings: dict) -> int:
        """Passes of the network per image: two per step but for the last, which is Euler's."""
        return 2 * settings["steps"] - 1

    @property
    def stochastic(self) -> bool:
        """Whether sampling takes fresh noise for every step."""
        return self.s_churn > 0

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        draw_noise: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Standard normal noise [B, C, H, W] -> samples, float64 [B, C, H, W] in the range of the training images.

        ``denoiser(x, sigma)`` gets float64 images and their noise levels [B]. A stochastic sampler calls ``draw_noise``
        once in each of its ``steps``, also where [s_min, s_max] lets nothing be added, for standard normal noise like
        ``noise``; so the k-th draw always belongs to step k.
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
            x_next = x + (sigma_next - sigma_hat) * slope  # Euler's step
            if sigma_next > 0:
                mean_slope = (slope + _slope(denoiser, x_next, sigma_next)) / 2
                x_next = x + (sigma_next - sigma_hat) * mean_slope
            x = x_next
        return x


def _slope(denoiser: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float) -> Tensor:
    """dx/dsigma of the probability flow: (x - D(x; sigma)) / sigma."""
    return (x - denoiser(x, x.new_full((len(x),), sigma))) / sigma


class EDM:
    """The whole process of a run: what is drawn for an image, its loss, and what samples from the trained network.

    ``augment`` holds ``probability`` and ``xflip`` of the :class:`AugmentPipe`. Raises ValueError for values that are
    out of range.
    """

    def __init__(self, sigma_data: float, p_mean: float, p_std: float, augment: dict):
        self.sigma_data = sigma_data
        self.loss = EDMLoss(p_mean, p_std, sigma_data)
        self.pipe = AugmentPipe(augment["probability"], augment["xflip"])

    @property
    def augment_labels(self) -> int:
        """How many augmentation labels the network gets: none where images are left alone."""
        return LABELS if self.pipe.active else 0

    def denoiser(self, net: nn.Module) -> Denoiser:
        """The network within its preconditioning."""
        return Denoiser(net, self.sigma_data)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """All that is random in training on one image of this shape [C, H, W]."""
        drawn = self.loss.draw(rng, shape)
        return {**drawn, "augment": self.pipe.draw(rng)} if self.pipe.active else drawn

    def losses(self, denoiser: nn.Module, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Images in [-1, 1] [B, C, H, W] and their stacked draws -> each image's loss, summed over pixels [B]."""
        labels = None
        if self.pipe.active:
            images, labels = self.pipe(images, drawn["augment"])
        return self.loss(denoiser, images, drawn["sigma"], drawn["noise"], labels)

    @staticmethod
    def loss_per_value(loss: float, shape: tuple[int, ...]) -> float:
        """The loss of images of this shape [C, H, W] as training tells it: a mean over their values."""
        return loss / math.prod(shape)

    def sampler_settings(self, settings: dict) -> dict:
        """The settings of a sampler as this process takes them: unchanged."""
        return settings

    @staticmethod
    def guided(denoiser: Denoiser, labels: Tensor, settings: dict) -> Denoiser:
        """What a sampler calls to make images: the denoiser itself, which knows no labels."""
        return denoiser
