"""Samplers of ADM's discrete-time diffusion: ancestral sampling (DDPM) and DDIM."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffit.process.discrete_time import LinearSchedule, Step, evenly_spaced, step_coefficients
from diffit.process.guidance import Guidance, Predict

if TYPE_CHECKING:
    from diffit.process.ddpm import DDPM


@dataclass(frozen=True)
class AncestralSampler:
    """DDPM: each reverse step samples N(mean, variance) with the predicted mean and variance, without clipping.

    Raises ValueError for invalid settings.
    """

    schedule: LinearSchedule
    steps: int

    def __post_init__(self):
        _check_steps(self.steps, self.schedule.timesteps)

    @classmethod
    def of(cls, process: "DDPM", settings: dict) -> "AncestralSampler":
        """Build a sampler from the settings of the configuration; other keys are ignored."""
        return cls(process.schedule, settings["steps"])

    @staticmethod
    def passes(process: dict, settings: dict) -> int:
        """Forward passes of the network per image, see :func:`guided_passes`."""
        return guided_passes(process, settings)

    @property
    def stochastic(self) -> bool:
        """Whether each step adds new noise."""
        return True

    @torch.no_grad()
    def __call__(self, predict: Predict, noise: Tensor, draw_noise: Callable[[], Tensor]) -> Tensor:
        """Standard normal noise [B, C, H, W] -> samples, float64 [B, C, H, W], in the range of the training latents.

        Args:
            predict: maps float64 latents [B, C, H, W] and timesteps [B] to noise and variance fractions [B, 2C, H, W].
            noise: the initial noise.
            draw_noise: returns new standard normal noise like ``noise``; called once per step, even in the last step,
                which adds no noise.
        """
        timesteps = evenly_spaced(self.schedule.timesteps, self.steps)
        steps = step_coefficients(self.schedule.signal[timesteps]).T.tolist()
        x = noise.double()  # [B, C, H, W]
        for i in reversed(range(self.steps)):
            step, fresh = Step(*steps[i]), draw_noise().double()
            epsilon, fraction = predict(x, _timesteps(x, timesteps[i])).chunk(2, dim=1)
            x = step.mean(step.start(x, epsilon), x)
            if i > 0:
                x = x + torch.exp(step.log_variance(fraction) / 2) * fresh
        return x


@dataclass(frozen=True)
class DDIMSampler:
    """DDIM (Song et al. 2021, Eq. 12 and 16), without the predicted variances.

    x_before = sqrt(a_before) x_0 + sqrt(1 - a_before - sigma²) eps + sigma n,
    sigma = eta sqrt((1 - a_before) / (1 - a) (1 - a / a_before)),  n ~ N(0, I).

    It is deterministic if ``eta`` is 0. Raises ValueError for invalid settings.
    """

    schedule: LinearSchedule
    steps: int
    eta: float

    def __post_init__(self):
        _check_steps(self.steps, self.schedule.timesteps)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta {self.eta} is not in [0, 1]")

    @classmethod
    def of(cls, process: "DDPM", settings: dict) -> "DDIMSampler":
        """Build a sampler from the settings of the configuration; other keys are ignored."""
        return cls(process.schedule, settings["steps"], settings["eta"])

    @staticmethod
    def passes(process: dict, settings: dict) -> int:
        """Forward passes of the network per image, see :func:`guided_passes`."""
        return guided_passes(process, settings)

    @property
    def stochastic(self) -> bool:
        """Whether each step adds new noise."""
        return self.eta > 0

    @torch.no_grad()
    def __call__(self, predict: Predict, noise: Tensor, draw_noise: Callable[[], Tensor] | None = None) -> Tensor:
        """As :meth:`AncestralSampler.__call__`, but ``draw_noise`` is called only if the sampler is stochastic."""
        assert not self.stochastic or draw_noise is not None, "a stochastic sampler needs draw_noise"
        timesteps = evenly_spaced(self.schedule.timesteps, self.steps)
        signal = self.schedule.signal[timesteps].tolist()
        x = noise.double()  # [B, C, H, W]
        for i in reversed(range(self.steps)):
            a, a_before = signal[i], signal[i - 1] if i else 1.0
            epsilon, _ = predict(x, _timesteps(x, timesteps[i])).chunk(2, dim=1)
            start = (x - math.sqrt(1 - a) * epsilon) / math.sqrt(a)
            sigma = self.eta * math.sqrt((1 - a_before) / (1 - a) * (1 - a / a_before))
            x = math.sqrt(a_before) * start + math.sqrt(1 - a_before - sigma**2) * epsilon
            if self.stochastic:
                x = x + sigma * draw_noise().double()
        return x


def guided_passes(process: dict, settings: dict) -> int:
    """Forward passes of the network per image: one per step, and a second one if guidance is active in the step."""
    guidance = Guidance.of(settings["guidance"], process["timesteps"])
    weights = guidance.weight(torch.tensor(evenly_spaced(process["timesteps"], settings["steps"])))
    return settings["steps"] + int(((weights - 1).abs() > guidance.tolerance).sum())


def _check_steps(steps: int, timesteps: int) -> None:
    if not 2 <= steps <= timesteps:
        raise ValueError(f"steps {steps} is not between 2 and the {timesteps} timesteps of training")


def _timesteps(x: Tensor, t: int) -> Tensor:
    return torch.full((len(x),), t, device=x.device)
