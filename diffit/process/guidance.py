"""Classifier-free guidance: a denoiser that is told the labels becomes one that exaggerates what they change."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Constant:
    """The same weight at every timestep."""

    weight: float

    def __call__(self, t: Tensor) -> Tensor:
        """Timesteps [B] -> weights, float64 [B]."""
        return torch.full_like(t, self.weight, dtype=torch.float64)


@dataclass(frozen=True)
class PowerCosine:
    """w(t) = 1 + (w - 1) (1 - cos(pi (1 - t/T)^power)) / 2: from 1 in pure noise up to ``weight`` at the image."""

    weight: float
    power: float
    timesteps: int  # T

    def __post_init__(self):
        if self.power <= 0:
            raise ValueError(f"guidance.power {self.power} is not positive")

    def __call__(self, t: Tensor) -> Tensor:
        """Timesteps [B] -> weights, float64 [B]."""
        ramp = (1 - t.double() / self.timesteps) ** self.power
        return 1 + (self.weight - 1) * (1 - torch.cos(math.pi * ramp)) / 2


@dataclass(frozen=True)
class Guidance:
    """eps = eps_without + w(t) (eps_with - eps_without), where a weight of one is no guidance.

    The paper guides three of the four latent channels; the others, and the variances, stay the labelled prediction's.
    Where no weight of a batch is further from one than ``tolerance``, the pass without labels is left out. At the
    default of 0 that changes nothing but rounding; any other value is part of what the sampler is.

    Raises ValueError for values that are out of range.
    """

    weight: Constant | PowerCosine
    channels: int | None  # of eps, counted from the first; None for all
    tolerance: float = 0.0

    def __post_init__(self):
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"guidance.channels {self.channels} is not positive")
        if self.tolerance < 0:
            raise ValueError(f"guidance.tolerance {self.tolerance} is negative")

    @classmethod
    def of(cls, settings: dict, timesteps: int) -> "Guidance":
        """Guidance as a sampler's ``guidance`` describes it: ``kind`` and, unless it is none, the fields it needs."""
        kind = settings["kind"]
        if kind == "none":
            return cls(Constant(1.0), None)
        if kind == "constant":
            weight = Constant(settings["weight"])
        elif kind == "power-cosine":
            weight = PowerCosine(settings["weight"], settings["power"], timesteps)
        else:
            raise ValueError(f"guidance.kind {kind!r} is not one of none, constant, power-cosine")
        return cls(weight, settings["channels"], settings["tolerance"])

    def __call__(self, denoiser: Callable[..., Tensor], labels: Tensor) -> Predict:
        """Wrap ``denoiser(x, t, labels, hidden)`` for images of these labels [B].

        What comes back takes noisy latents [B, C, H, W] and timesteps [B] to noise and variance fractions
        [B, 2C, H, W], in one pass of the doubled batch. Raises ValueError where the network cannot be guided so.
        """
        if self.weight.weight != 1 and not denoiser.num_classes:
            raise ValueError(
                f"guidance.weight {self.weight.weight} is for class-conditional networks, and this one has no classes"
            )
        if self.channels is not None and self.channels > denoiser.channels:
            raise ValueError(f"guidance.channels {self.channels} is more than the {denoiser.channels} of the latents")
        guided_channels = self.channels or denoiser.channels

        def guided(x: Tensor, t: Tensor) -> Tensor:
            weight = self.weight(t)  # [B]
            if ((weight - 1).abs() <= self.tolerance).all():
                return denoiser(x, t, labels)
            hidden = torch.arange(2 * len(x), device=x.device) >= len(x)
            both = denoiser(x.repeat(2, 1, 1, 1), t.repeat(2), labels.repeat(2), hidden)  # [2B, 2C, H, W]
            with_label, without = both.chunk(2)
            w = weight.to(x.dtype).reshape(-1, 1, 1, 1)  # [B, 1, 1, 1]
            epsilon = torch.lerp(without[:, :guided_channels], with_label[:, :guided_channels], w)
            return torch.cat([epsilon, with_label[:, guided_channels:]], dim=1)

        return guided
