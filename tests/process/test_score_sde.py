"""VP and VE: preconditioning, noise levels of training, and the range of noise levels in sampling."""

import numpy as np
import pytest
import torch

from diffit import process
from diffit.process import samplers
from diffit.process.ve import SIGMA_MAX, SIGMA_MIN
from diffit.process.vp import sigma_of_time, time_of_sigma


def test_vp_and_ve_have_the_preconditioning_of_edms_table():
    seen = {}

    def net(x, noise, augment):
        seen["x"], seen["noise"] = x, noise
        return torch.ones_like(x)

    net.parameters = lambda: iter([torch.zeros(1)])
    x, sigma = torch.randn(2, 3, 4, 4), torch.tensor([0.5, 20.0])
    s = sigma[:, None, None, None]
    for kind, c_in, c_out, noise in [
        ("vp", 1 / (s**2 + 1).sqrt(), -s, 999 * time_of_sigma(sigma)),
        ("ve", torch.ones_like(s), s, (sigma / 2).log()),
    ]:
        task = process.build({"kind": kind, "augment": {"probability": 0, "xflip": False}})
        denoiser = task.denoiser(torch.nn.Identity())
        denoiser.__dict__["_modules"].pop("net")
        denoiser.net = net
        torch.testing.assert_close(denoiser(x, sigma), x + c_out)
        torch.testing.assert_close(seen["x"], c_in * x)
        torch.testing.assert_close(seen["noise"], noise.float())


def test_vp_and_ve_draw_their_own_noise_levels_and_weight_the_loss_by_them():
    # β from 0.1 to 20: σ(1)² + 1 = exp(10.05).
    assert sigma_of_time(1.0) ** 2 + 1 == pytest.approx(np.exp(10.05))
    times = torch.tensor([1e-5, 0.01, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        time_of_sigma(torch.from_numpy(sigma_of_time(times.numpy()))), times, rtol=1e-6, atol=1e-9
    )
    rng = np.random.default_rng(0)
    quantiles = {}
    for kind in ("vp", "ve"):
        loss = process.build({"kind": kind, "augment": {"probability": 0, "xflip": False}}).loss
        sigmas = np.sort([loss.draw(rng, (1, 1, 1))["sigma"] for _ in range(4000)])
        quantiles[kind] = sigmas[[0, 2000, -1]]
        images, noise, sigma = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2), torch.tensor([0.5, 4.0])
        # The error of the identity is sigma n; with the loss weight it is 1 for each of the 4 pixels.
        torch.testing.assert_close(loss(lambda x, s, a: x, images, sigma, noise), torch.tensor([4.0, 4.0]))
    low, middle, high = quantiles["vp"]
    assert low < 0.03 and middle == pytest.approx(sigma_of_time(0.5), rel=0.1) and 130 < high <= sigma_of_time(1.0)
    low, middle, high = quantiles["ve"]
    assert SIGMA_MIN <= low < 0.021 and middle == pytest.approx(2**0.5, rel=0.15) and 98 < high <= SIGMA_MAX


def test_samplers_stay_within_the_noise_levels_of_training():
    settings = {"kind": "heun", "steps": 18, "sigma_min": 0.002, "sigma_max": 80, "rho": 7}
    augment = {"probability": 0, "xflip": False}
    bounds = {
        kind: (sampler.sigma_min, sampler.sigma_max)
        for kind in ("vp", "ve")
        for sampler in [samplers.build(process.build({"kind": kind, "augment": augment}), settings)]
    }
    assert bounds == {"vp": (0.002, 80), "ve": (0.02, 80)}
