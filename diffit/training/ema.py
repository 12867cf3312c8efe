"""Exponential moving average (EMA) of weights, with torch's AveragedModel.

After a batch of B images, N images seen in all:

    ema ← β ema + (1 - β) net,    β = (1/2)^(B / h),    h = min(halflife, N · rampup)

Source: the training code of Karras et al. 2022 (EDM).
"""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class EMA:
    """EMA of a network's parameters. Its half-life is in images, so the batch size does not change its time scale.

    Args:
        net: the network to be trained; its current weights are the initial average.
        halflife: images after which the influence of past weights has halved.
        rampup: limits the half-life to this fraction of the images seen so far; None for no limit.
    """

    def __init__(self, net: nn.Module, halflife: float, rampup: float | None):
        self.halflife, self.rampup = halflife, rampup
        self.beta: float  # of the current step
        self.average = AveragedModel(net, multi_avg_fn=self._average)
        self.average.requires_grad_(False).eval()
        self.average.n_averaged.fill_(1)  # at 0, torch would copy the network at the first update

    def update(self, net: nn.Module, images: int, batch: int) -> None:
        """Update the average after a step of ``batch`` images; ``images`` counts all images seen, including them."""
        self.beta = decay(images, batch, self.halflife, self.rampup)
        self.average.update_parameters(net)

    @property
    def net(self) -> nn.Module:
        """The network with the averaged weights."""
        return self.average.module

    @torch.no_grad()
    def _average(self, averaged, current, _count) -> None:
        torch._foreach_lerp_(averaged, current, 1 - self.beta)


def decay(images: int, batch: int, halflife: float, rampup: float | None) -> float:
    """Return β of one step, see the formula above. All arguments but ``rampup`` count images."""
    if rampup is not None:
        halflife = min(halflife, images * rampup)
    return 0.5 ** (batch / max(halflife, 1e-8))
