"""Discrete-time diffusion: the noise schedule and the coefficients of forward and reverse steps.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n,  n ~ N(0, I),  a_t = prod_{s <= t} (1 - beta_s)

"a" is "alpha bar" in the papers; "before" is the timestep that a chain visits before t.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, repeat
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearSchedule:
    """ADM's noise schedule: beta_t rises linearly from 1e-4 k to 0.02 k, with k = 1000 / timesteps.

    Raises ValueError for fewer than 21 timesteps, for which the last beta would not be below 1.
    """

    timesteps: int

    def __post_init__(self):
        if self.timesteps < 21:
            raise ValueError(f"timesteps {self.timesteps} is less than 21, the smallest number with all betas below 1")

    @cached_property
    def signal(self) -> Tensor:
        """a_t for all timesteps: float64 [timesteps]."""
        scale = 1000 / self.timesteps
        betas = torch.linspace(scale * 1e-4, scale * 0.02, self.timesteps, dtype=torch.float64)
        return (1 - betas).cumprod(0)


def evenly_spaced(timesteps: int, steps: int) -> list[int]:
    """The timesteps that a sampler with fewer steps visits, ascending, from the first to the last timestep.

    They are those of ADM (``space_timesteps`` of guided-diffusion with one section; not its ``ddimN``): the stride is
    added up in floating point and each sum rounded, half to even. Products i · stride would round differently for 283
    of the step counts up to 1,000. One step visits timestep 0.
    """
    stride = (timesteps - 1) / (steps - 1) if steps > 1 else 1.0
    return [round(place) for place in accumulate(repeat(stride, steps - 1), initial=0.0)]


class Step(NamedTuple):
    """Coefficients of q(x_t | x_0) and of the posterior q(x_before | x_t, x_0) at one step.

    The coefficients are floats, or tensors [B, 1, 1, 1] with one step per image.
    """

    signal: float | Tensor  # sqrt(a_t)
    noise: float | Tensor  # sqrt(1 - a_t)
    from_start: float | Tensor  # coefficient of x_0 in the posterior mean
    from_noisy: float | Tensor  # coefficient of x_t in the posterior mean
    log_least: float | Tensor  # log of the posterior variance, the minimum for the reverse step
    log_most: float | Tensor  # log of beta_t, the maximum for the reverse step

    def noisy(self, start: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n."""
        return self.signal * start + self.noise * noise

    def start(self, x: Tensor, noise: Tensor) -> Tensor:
        """x_0 = (x_t - sqrt(1 - a_t) n) / sqrt(a_t)."""
        return (x - self.noise * noise) / self.signal

    def mean(self, start: Tensor, x: Tensor) -> Tensor:
        """Mean of q(x_before | x_t, x_0) (DDPM, Eq. 7): a linear combination of x_0 and x_t."""
        return self.from_start * start + self.from_noisy * x

    def log_variance(self, fraction: Tensor) -> Tensor:
        """Log variance of the reverse step, v log_most + (1 - v) log_least with v = (fraction + 1) / 2.

        The network predicts the fraction (Nichol & Dhariwal, Eq. 15).
        """
        share = (fraction + 1) / 2
        return share * self.log_most + (1 - share) * self.log_least


def step_coefficients(signal: Tensor) -> Tensor:
    """The fields of :class:`Step` for each step of a chain with these a_t [T]: float64 [6, T].

    beta = 1 - a / a_before,  posterior variance = beta (1 - a_before) / (1 - a),
    from_start = beta sqrt(a_before) / (1 - a),  from_noisy = (1 - a_before) sqrt(a / a_before) / (1 - a)
    """
    before = torch.cat([signal.new_ones(1), signal[:-1]])
    beta = 1 - signal / before
    least = beta * (1 - before) / (1 - signal)
    least[0] = least[1]  # the variance of the last reverse step is 0, but its log must be finite
    from_start = beta * before.sqrt() / (1 - signal)
    from_noisy = (1 - before) * (signal / before).sqrt() / (1 - signal)
    return torch.stack([signal.sqrt(), (1 - signal).sqrt(), from_start, from_noisy, least.log(), beta.log()])
