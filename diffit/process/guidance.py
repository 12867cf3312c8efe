"""Classifier-free guidance with a constant or time-dependent weight (Sections 3.3 and 4 of the paper)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Constant:
    """w(t) = weight."""

    weight: float

    def __call__(self, t: Tensor) -> Tensor:
        """Timesteps [B] -> weights w(t), float64 [B]."""
        return torch.full_like(t, self.weight, dtype=torch.float64)


@dataclass(frozen=True)
class PowerCosine:
    """w(t) = 1 + (weight - 1) (1 - cos(pi (1 - t/T)^power)) / 2: increases from 1 at t = T to ``weight`` at t = 0."""

    weight: float
    power: float
    timesteps: int  # T

    def __post_init__(self):
        if self.power <= 0:
            raise ValueError(f"guidance.power {self.power} is not positive")

    def __call__(self, t: Tensor) -> Tensor:
        """Timesteps [B] -> weights w(t), float64 [B]."""
        ramp = (1 - t.double() / self.timesteps) ** self.power
        return 1 + (self.weight - 1) * (1 - torch.cos(math.pi * ramp)) / 2


@dataclass(frozen=True)
class Guidance:
    """eps = eps_uncond + w(t) (eps_cond - eps_uncond), the predictions with and without label.

    w = 1 means no guidance. The paper guides three of the four latent channels; the other channels and the variances
    come from the prediction with the label. If |w - 1| <= ``tolerance`` for a whole batch, the pass without labels is
    skipped. A tolerance of 0 affects only rounding; larger values change the samples.

    Args:
        weight: w(t).
        channels: number of guided channels of eps, counted from the first; None for all.
        tolerance: bound of |w - 1| below which guidance is skipped.

    Raises ValueError for values that are out of range.
    """

    weight: Constant | PowerCosine
    channels: int | None
    tolerance: float = 0.0

    def __post_init__(self):
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"guidance.channels {self.channels} is not positive")
        if self.tolerance < 0:
            raise ValueError(f"guidance.tolerance {self.tolerance} is negative")

    @classmethod
    def of(cls, settings: dict, timesteps: int) -> "Guidance":
        """Guidance from a sampler's ``guidance`` settings and the process's number of timesteps."""
        kind = settings["kind"]
        if kind == "none":
            return cls(Constant(1.0), None)
        if kind == "constant":
            weight = Constant(settings["weight"])
        elif kind == "power-cosine":
            weight = PowerCosine(settings["weight"], settings["power"], timesteps)
        else:
            raise ValueError(f"guidance.kind is {kind!r}; choose one of none, constant, power-cosine")
        return cls(weight, settings["channels"], settings["tolerance"])

    def __call__(self, denoiser: Callable[..., Tensor], labels: Tensor) -> Predict:
        """Guide ``denoiser(x, t, labels, hidden)`` towards these labels [B].

        The returned function maps noisy latents [B, C, H, W] and timesteps [B] to noise and variance fractions
        [B, 2C, H, W] in one forward pass of a batch of 2B. Raises ValueError if the network has no classes or fewer
        channels than are guided.
        """
        if self.weight.weight != 1 and not denoiser.num_classes:
            raise ValueError(
                f"guidance.weight {self.weight.weight} needs a class-conditional network; this one has no classes"
            )
        if self.channels is not None and self.channels > denoiser.channels:
            raise ValueError(f"guidance.channels {self.channels} is more than the {denoiser.channels} latent channels")
        guided_channels = self.channels or denoiser.channels

        def guided(x: Tensor, t: Tensor) -> Tensor:
            weight = self.weight(t)  # [B]
            if ((weight - 1).abs() <= self.tolerance).all():
                return denoiser(x, t, labels)
            hidden = torch.arange(2 * len(x), device=x.device) >= len(x)
            both = denoiser(x.repeat(2, 1, 1, 1), t.repeat(2), labels.repeat(2), hidden)  # [2B, 2C, H, W]
            conditional, unconditional = both.chunk(2)
            w = weight.to(x.dtype).reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
            epsilon = torch.lerp(unconditional[:, :guided_channels], conditional[:, :guided_channels], w)
            return torch.cat([epsilon, conditional[:, guided_channels:]], dim=1)

        return guided
