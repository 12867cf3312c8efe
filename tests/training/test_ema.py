"""The moving average, compared with its closed form."""

import pytest
import torch
from torch import nn

from diffit.training.ema import EMA, decay


def test_half_of_the_weight_is_left_after_the_half_life():
    steps, batch, halflife = 100, 16, 1600
    assert decay(10**9, batch, halflife, None) ** steps == pytest.approx(0.5)


def test_the_ramp_up_bounds_the_half_life_by_a_fraction_of_the_images_seen():
    assert decay(1000, 10, 500_000, 0.05) == pytest.approx(0.5 ** (10 / 50))
    assert decay(10**9, 10, 500_000, 0.05) == pytest.approx(0.5 ** (10 / 500_000))
    assert decay(0, 10, 500_000, 0.05) == 0


def test_the_average_follows_the_recursion_from_the_start_weights():
    net = nn.Linear(3, 2)
    start = net.weight.detach().clone()
    ema = EMA(net, halflife=64, rampup=None)
    expected, beta = start.double(), 0.5 ** (16 / 64)
    for step in range(5):
        with torch.no_grad():
            net.weight.add_(step + 1)
        ema.update(net, images=(step + 1) * 16, batch=16)
        expected = beta * expected + (1 - beta) * net.weight.detach().double()
    torch.testing.assert_close(ema.net.weight.double(), expected, rtol=1e-6, atol=1e-6)
    assert not ema.net.training and not any(parameter.requires_grad for parameter in ema.net.parameters())
