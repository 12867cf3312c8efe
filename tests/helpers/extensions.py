"""A network and a sampler that exist only in tests: what a module behind a registry entry has to provide."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffit.nets import Network
from diffit.process.edm import EDM, sigma_schedule
from diffit.process.samplers import Sampler
from diffit.registry import COUNT, POSITIVE, default


@dataclass(frozen=True)
class PlainConfig:
    """Shape of a :class:`PlainNet`: the setting ``width``, and the sizes that follow from the data."""

    width: int
    resolution: int
    channels: int
    augment_labels: int


class PlainNet(nn.Module):
    """Two convolutions; the noise level is added to all hidden channels."""

    def __init__(self, config: PlainConfig):
        super().__init__()
        self.config, self.checkpoint_blocks = config, False
        self.encoder = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.decoder = nn.Conv2d(config.width, config.channels, 3, padding=1)

    def forward(self, x: Tensor, noise: Tensor, augment: Tensor | None = None) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x) + noise[:, None, None, None]))


@dataclass(frozen=True)
class EulerSampler:
    """x <- x + (sigma' - sigma) (x - D(x; sigma)) / sigma: EDM's sampler without the correction of second order."""

    steps: int
    sigma_max: float

    @classmethod
    def of(cls, process: EDM, settings: dict) -> "EulerSampler":
        return cls(settings["steps"], settings["sigma_max"])

    @staticmethod
    def passes(process_spec: dict, settings: dict) -> int:
        return settings["steps"]

    @property
    def stochastic(self) -> bool:
        return False

    @torch.no_grad()
    def __call__(self, denoiser: Callable[[Tensor, Tensor], Tensor], noise: Tensor, draw_noise=None) -> Tensor:
        sigmas = sigma_schedule(self.steps, 0.002, self.sigma_max, 7).tolist()
        x = noise.double() * sigmas[0]
        for sigma, sigma_next in itertools.pairwise(sigmas):
            denoised = denoiser(x, x.new_full((len(x),), sigma))
            x = x + (sigma_next - sigma) * (x - denoised) / sigma
        return x


PLAIN_NETWORK = Network(
    name="plain",
    description="two convolutions",
    module=__name__,
    config="PlainConfig",
    network="PlainNet",
    sees="images",
    settings={"width": COUNT},
)
EULER_SAMPLER = Sampler(
    name="euler",
    description="Euler's method",
    module=__name__,
    sampler="EulerSampler",
    processes=("edm",),
    settings={"sigma_max": default(POSITIVE, 80)},
    shown={"sigma_max": "from {:g}"},
)
