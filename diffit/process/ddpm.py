"""Diffusion in discrete steps as ADM has it (Nichol & Dhariwal 2021, Dhariwal & Nichol 2021), for latents with labels.

The network predicts the noise in x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n and, for each value, the variance of the step
back. Here a_t, "alpha bar" in the papers, is the share of the signal in the variance after t + 1 steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from diffit.process.guidance import Guidance, Predict


class Denoiser(nn.Module):
    """A class-conditional network in the precision of its parameters; what goes in and out has the precision of x."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.num_classes, self.channels = net.config.num_classes, net.config.channels

    def forward(self, x: Tensor, t: Tensor, labels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Noisy latents [B, C, H, W], timesteps [B], labels [B], and whose label is hidden: bool [B] or None for nobody
        -> noise and variance fractions, [B, 2C, H, W] like x."""
        if hidden is not None:
            labels = labels.masked_fill(hidden, self.num_classes)
        dtype = next(self.net.parameters(), x).dtype
        return self.net(x.to(dtype), t, labels).to(x.dtype)


@dataclass(frozen=True)
class LinearSchedule:
    """ADM's noise: variances that rise in a line over ``timesteps`` steps, from 1e-4 to 0.02 where there are 1000."""

    timesteps: int

    def __post_init__(self):
        if self.timesteps < 21:
            raise ValueError(f"timesteps {self.timesteps} is less than 21, where the last step adds more than it can")

    @cached_property
    def signal(self) -> Tensor:
        """a_t: float64 [timesteps]."""
        scale = 1000 / self.timesteps
        betas = torch.linspace(scale * 1e-4, scale * 0.02, self.timesteps, dtype=torch.float64)
        return (1 - betas).cumprod(0)


def evenly_spaced(timesteps: int, steps: int) -> list[int]:
    """The timesteps that a sampler of fewer steps visits, rising, the first and the last among them."""
    return [round(i * (timesteps - 1) / (steps - 1)) for i in range(steps)]


class Step(NamedTuple):
    """Coefficients of q(x_t | x_0) and of q(x_before | x_t, x_0) at one step, or at one for each image [B, 1, 1, 1]."""

    signal: float | Tensor  # sqrt(a_t)
    noise: float | Tensor  # sqrt(1 - a_t)
    from_start: float | Tensor  # what the posterior's mean takes of x_0
    from_noisy: float | Tensor  # and of x_t
    log_least: float | Tensor  # log of the posterior's variance, the least that the step back can have
    log_most: float | Tensor  # log of the step's own variance beta_t, the most

    def noisy(self, start: Tensor, noise: Tensor) -> Tensor:
        """x_t of x_0 and its noise."""
        return self.signal * start + self.noise * noise

    def start(self, x: Tensor, noise: Tensor) -> Tensor:
        """x_0 of x_t and its noise."""
        return (x - self.noise * noise) / self.signal

    def mean(self, start: Tensor, x: Tensor) -> Tensor:
        """Mean of q(x_before | x_t, x_0) (DDPM, Eq. 7)."""
        return self.from_start * start + self.from_noisy * x

    def log_variance(self, fraction: Tensor) -> Tensor:
        """Log variance of the step back, for fractions in [-1, 1] within its range (Nichol & Dhariwal, Eq. 15)."""
        share = (fraction + 1) / 2
        return share * self.log_most + (1 - share) * self.log_least


def chain(signal: Tensor) -> Tensor:
    """The numbers of a :class:`Step` for each step of a chain with these a_t [T]: float64 [6, T]."""
    before = torch.cat([signal.new_ones(1), signal[:-1]])
    beta = 1 - signal / before
    least = beta * (1 - before) / (1 - signal)
    least[0] = least[1]  # the last step back has none, and its log must stay finite
    from_start = beta * before.sqrt() / (1 - signal)
    from_noisy = (1 - before) * (signal / before).sqrt() / (1 - signal)
    return torch.stack([signal.sqrt(), (1 - signal).sqrt(), from_start, from_noisy, least.log(), beta.log()])


@dataclass(frozen=True)
class HybridLoss:
    """Squared error of the noise plus the variational bound, from which only the variance learns (L_hybrid).

    Nichol & Dhariwal weigh the bound by 1/1000 of its sum over all steps; drawing one of 1000 timesteps does just that.
    """

    schedule: LinearSchedule

    @cached_property
    def _chain(self) -> Tensor:
        return chain(self.schedule.signal)  # [6, T]

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """What is random in one latent's loss, given its shape: int64 ``timestep`` [], float32 ``noise`` [C, H, W]."""
        timestep = rng.integers(self.schedule.timesteps)
        return {"timestep": np.array(timestep, np.int64), "noise": rng.standard_normal(shape, dtype=np.float32)}

    def __call__(
        self, denoiser: Callable[..., Tensor], latents: Tensor, t: Tensor, noise: Tensor, *condition: Tensor
    ) -> Tensor:
        """Latents and noise [B, C, H, W], timesteps [B], what else the denoiser takes -> each image's loss [B]."""
        return sum(self.terms(denoiser, latents, t, noise, *condition))

    def terms(
        self, denoiser: Callable[..., Tensor], latents: Tensor, t: Tensor, noise: Tensor, *condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The two terms, means over a latent's values: squared error [B], bound in bits [B]."""
        rows = self._chain.to(t.device, non_blocking=True)[:, t].to(latents.dtype)  # [6, B]
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
    """KL divergence of a normal distribution from another one, value by value, in nats."""
    log_ratio = log_variance - other_log_variance
    distance = (mean - other_mean) ** 2 * torch.exp(-other_log_variance)
    return (torch.exp(log_ratio) - log_ratio - 1 + distance) / 2


def decoder_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log of the mass of N(mean, variance) in the bin around x, value by value, in nats (DDPM, Eq. 13).

    [-1, 1] has 255 bins' widths, and the outermost bins reach to infinity. ADM made this for pixels; the released
    network was trained with it on latents as well.
    """
    inverse_std = torch.exp(-log_variance / 2)
    below = _normal_cdf((x - mean - 1 / 255) * inverse_std)
    above = _normal_cdf((x - mean + 1 / 255) * inverse_std)
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return -mass.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    # ADM's approximation, with which the released network was trained; it is off by up to 3e-4.
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


@dataclass(frozen=True)
class AncestralSampler:
    """DDPM: in each step back a draw from N(mean, variance) as the network predicts them; nothing is clipped.

    A sampler holds settings only. Raises ValueError for those that make no schedule.
    """

    schedule: LinearSchedule
    steps: int

    def __post_init__(self):
        _check_steps(self.steps, self.schedule.timesteps)

    @classmethod
    def of(cls, process: "DDPM", settings: dict) -> "AncestralSampler":
        """The sampler that a configuration describes; other keys are ignored."""
        return cls(process.schedule, settings["steps"])

    @staticmethod
    def passes(process: dict, settings: dict) -> int:
        """Passes of the network per image, see :func:`guided_passes`."""
        return guided_passes(process, settings)

    @property
    def stochastic(self) -> bool:
        """Whether sampling takes fresh noise for every step."""
        return True

    @torch.no_grad()
    def __call__(self, predict: Predict, noise: Tensor, draw_noise: Callable[[], Tensor]) -> Tensor:
        """Standard normal noise [B, C, H, W] -> samples, float64 [B, C, H, W] in the range of the training latents.

        ``predict(x, t)`` gets float64 latents and their timesteps [B], and gives noise and variance fractions. In each
        of the ``steps``, also in the last, which adds none, ``draw_noise`` is called once for standard normal noise.
        """
        timesteps = evenly_spaced(self.schedule.timesteps, self.steps)
        steps = chain(self.schedule.signal[timesteps]).T.tolist()
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
    """DDIM (Song et al. 2021, Eq. 12 and 16): deterministic where ``eta`` is 0; the variance head is not used.

    A sampler holds settings only. Raises ValueError for those that make no schedule.
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
        """The sampler that a configuration describes; other keys are ignored."""
        return cls(process.schedule, settings["steps"], settings["eta"])

    @staticmethod
    def passes(process: dict, settings: dict) -> int:
        """Passes of the network per image, see :func:`guided_passes`."""
        return guided_passes(process, settings)

    @property
    def stochastic(self) -> bool:
        """Whether sampling takes fresh noise for every step."""
        return self.eta > 0

    @torch.no_grad()
    def __call__(self, predict: Predict, noise: Tensor, draw_noise: Callable[[], Tensor] | None = None) -> Tensor:
        """As :meth:`AncestralSampler.__call__`; ``draw_noise`` is called only where the sampler is stochastic."""
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
    """Passes of the network per image: one per step, and one more where the guidance weight is not one."""
    guidance = Guidance.of(settings["guidance"], process["timesteps"])
    weights = guidance.weight(torch.tensor(evenly_spaced(process["timesteps"], settings["steps"])))
    return settings["steps"] + int(((weights - 1).abs() > guidance.tolerance).sum())


def _check_steps(steps: int, timesteps: int) -> None:
    if not 2 <= steps <= timesteps:
        raise ValueError(f"steps {steps} is not between 2 and the {timesteps} timesteps of training")


def _timesteps(x: Tensor, t: int) -> Tensor:
    return torch.full((len(x),), t, device=x.device)


class DDPM:
    """The whole process of a run: what is drawn for an image, its loss, and what samples from the trained network.

    ``label_dropout`` is the share of training images whose label is hidden, ``xflip`` whether half of the images are
    mirrored. Raises ValueError for values that are out of range.
    """

    def __init__(self, timesteps: int, label_dropout: float, xflip: bool = False):
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout {label_dropout} is not in [0, 1]")
        self.schedule, self.label_dropout, self.xflip = LinearSchedule(timesteps), label_dropout, xflip
        self.loss = HybridLoss(self.schedule)

    def denoiser(self, net: nn.Module) -> Denoiser:
        """The network, told whose labels to hide."""
        return Denoiser(net)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """All that is random in training on one latent of this shape [C, H, W]: bool ``hidden`` [] and the loss's."""
        hidden = rng.random() < self.label_dropout
        return {"hidden": np.array(hidden), **self.loss.draw(rng, shape)}

    def losses(self, denoiser: nn.Module, latents: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Scaled latents [B, C, H, W], their stacked draws and ``labels`` [B] -> each one's loss, per value [B]."""
        return self.loss(denoiser, latents, drawn["timestep"], drawn["noise"], drawn["labels"], drawn["hidden"])

    @staticmethod
    def loss_per_value(loss: float, shape: tuple[int, ...]) -> float:
        """The loss of latents of this shape as training tells it: it is a mean over their values already."""
        return loss

    def sampler_settings(self, settings: dict) -> dict:
        """The settings of a sampler as this process takes them: unchanged."""
        return settings

    def guided(self, denoiser: Denoiser, labels: Tensor, settings: dict) -> Predict:
        """What a sampler calls to make images of these labels [B], guided as ``settings["guidance"]`` says."""
        return Guidance.of(settings["guidance"], self.schedule.timesteps)(denoiser, labels)
