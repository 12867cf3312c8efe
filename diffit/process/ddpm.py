"""ADM's diffusion (Nichol & Dhariwal 2021, Dhariwal & Nichol 2021) for latents with class labels: loss and denoiser.

The network predicts the noise n in x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n and, per value, the variance of the reverse
step (see :mod:`diffit.process.discrete_time`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from diffit.process.discrete_time import LinearSchedule, Step, step_coefficients
from diffit.process.guidance import Guidance, Predict


class Denoiser(nn.Module):
    """A class-conditional network that uses the dtype of its parameters; inputs and outputs have the dtype of x."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.num_classes, self.channels = net.config.num_classes, net.config.channels

    def forward(self, x: Tensor, t: Tensor, labels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Predict noise and variance fractions [B, 2C, H, W].

        Args:
            x: noisy latents [B, C, H, W].
            t: timesteps [B].
            labels: classes [B].
            hidden: whether the network sees "no label" instead of the class, bool [B]; None for no hidden labels.
        """
        if hidden is not None:
            labels = labels.masked_fill(hidden, self.num_classes)
        dtype = next(self.net.parameters(), x).dtype
        return self.net(x.to(dtype), t, labels).to(x.dtype)


@dataclass(frozen=True)
class HybridLoss:
    """L_hybrid = |eps - n|² + L_vlb, in which only the predicted variance receives gradients from L_vlb.

    Nichol & Dhariwal weight the sum of the bound over all 1000 steps by 1/1000, which is its mean over timesteps.
    """

    schedule: LinearSchedule

    @cached_property
    def _coefficients(self) -> Tensor:
        return step_coefficients(self.schedule.signal)  # [6, T]

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The random values in the loss of one latent: int64 ``timestep`` [] and float32 ``noise`` [C, H, W]."""
        timestep = rng.integers(self.schedule.timesteps)
        return {"timestep": np.array(timestep, np.int64), "noise": rng.standard_normal(shape, dtype=np.float32)}

    def __call__(
        self, denoiser: Callable[..., Tensor], latents: Tensor, t: Tensor, noise: Tensor, *condition: Tensor
    ) -> Tensor:
        """Latents and noise [B, C, H, W], timesteps [B], further arguments of the denoiser -> loss per image [B]."""
        return sum(self.terms(denoiser, latents, t, noise, *condition))

    def terms(
        self, denoiser: Callable[..., Tensor], latents: Tensor, t: Tensor, noise: Tensor, *condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The two terms as means over the values of a latent: squared error [B] and bound in bits [B]."""
        rows = self._coefficients.to(t.device, non_blocking=True)[:, t].to(latents.dtype)  # [6, B]
        step = Step(*rows[..., None, None, None])
        x = step.noisy(latents, noise)
        epsilon, fraction = denoiser(x, t, *condition).chunk(2, dim=1)  # each [B, C, H, W]
        mean = step.mean(step.start(x, epsilon.detach()), x)
        log_variance = step.log_variance(fraction)
        divergence = gaussian_kl(step.mean(latents, x), step.log_least, mean, log_variance)
        likelihood = decoder_nll(latents, mean, log_variance)
        bound = torch.where(t[:, None, None, None] == 0, likelihood, divergence)
        squared_error = (epsilon - noise) ** 2
        return squared_error.mean(dim=(1, 2, 3)), bound.mean(dim=(1, 2, 3)) / math.log(2)


def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other_mean, other_variance)) per value, in nats."""
    log_ratio = log_variance - other_log_variance
    distance = (mean - other_mean) ** 2 * torch.exp(-other_log_variance)
    return (torch.exp(log_ratio) - log_ratio - 1 + distance) / 2


def decoder_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-ln of the probability of N(mean, variance) in the bin [x - 1/255, x + 1/255], per value, in nats (DDPM, Eq. 13).

    The bins at -1 and 1 extend to infinity. ADM uses this likelihood for pixels; the released network was trained with
    it on latents.
    """
    inverse_std = torch.exp(-log_variance / 2)
    below = _normal_cdf((x - mean - 1 / 255) * inverse_std)
    above = _normal_cdf((x - mean + 1 / 255) * inverse_std)
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return -mass.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    # ADM's approximation, with which the released network was trained. Its error is up to 3e-4.
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


class DDPM:
    """ADM's process: random values of training, training loss, and the guided denoiser for samplers.

    Args:
        timesteps: number T of timesteps.
        label_dropout: fraction of training images whose label is hidden from the network.
        xflip: whether half of the training images are mirrored.

    Raises ValueError for values that are out of range.
    """

    def __init__(self, timesteps: int, label_dropout: float, xflip: bool = False):
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout {label_dropout} is not in [0, 1]")
        self.schedule, self.label_dropout, self.xflip = LinearSchedule(timesteps), label_dropout, xflip
        self.loss = HybridLoss(self.schedule)

    def denoiser(self, net: nn.Module) -> Denoiser:
        """The network as a denoiser that can hide labels."""
        return Denoiser(net)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """All random values in training on one latent of this shape [C, H, W]: the loss's, and bool ``hidden`` []."""
        hidden = rng.random() < self.label_dropout
        return {"hidden": np.array(hidden), **self.loss.draw(rng, shape)}

    def losses(self, denoiser: nn.Module, latents: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Scaled latents [B, C, H, W], stacked random values and ``labels`` [B] -> mean loss per latent [B]."""
        return self.loss(denoiser, latents, drawn["timestep"], drawn["noise"], drawn["labels"], drawn["hidden"])

    @staticmethod
    def loss_per_value(loss: float, shape: tuple[int, ...]) -> float:
        """Convert a loss to the logged unit, the mean over values; it already has this unit."""
        return loss

    def sampler_settings(self, settings: dict) -> dict:
        """The settings that a sampler of this process uses: the given ones."""
        return settings

    def guided(self, denoiser: Denoiser, labels: Tensor, settings: dict) -> Predict:
        """The function that a sampler calls: the denoiser for these labels [B] with ``settings["guidance"]``."""
        return Guidance.of(settings["guidance"], self.schedule.timesteps)(denoiser, labels)
