"""Exponential moving average of weights, on torch's own AveragedModel, with EDM's half-life in images and ramp-up."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class EMA:
    """EMA of a network's parameters, counted in images, so that the batch size does not change its time scale.

    After a batch, ema ← ema + (1 − β)(net − ema) with β = ½^(batch / half-life) (Karras et al. 2022, training code).

    Args:
        net: the trained network; its weights now are the average's start.
        halflife: images after which a weight's influence has halved.
        rampup: bounds the half-life by this fraction of the images seen so far; None for no ramp-up.
    """

    def __init__(self, net: nn.Module, halflife: float, rampup: float | None):
        self.halflife, self.rampup = halflife, rampup
        self.beta = 0.0
        self.average = AveragedModel(net, multi_avg_fn=self._average)
        self.average.requires_grad_(False).eval()
        self.average.n_averaged.fill_(1)  # the start counts: without it the first update would copy the net

    def update(self, net: nn.Module, images: int, batch: int) -> None:
        """Take in the weights after a step that ended at ``images`` images seen."""
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
    """β of one step: the weight that the average keeps. All arguments count images."""
    if rampup is not None:
        halflife = min(halflife, images * rampup)
    return 0.5 ** (batch / max(halflife, 1e-8))
