"""EDM's process against closed forms, the reference sampler, and analytic solutions for Gaussian data."""

import math

import numpy as np
import pytest
import torch
from helpers.differences import assert_close
from torch import nn

from diffit.process import samplers
from diffit.process.edm import EDM, Denoiser, EDMLoss, HeunSampler, sigma_schedule

SCHEDULE = {"sigma_min": 0.002, "sigma_max": 80, "rho": 7}


def reference_denoiser(x, sigma):
    s = sigma.reshape(-1, 1, 1, 1)
    return x * 0.25 / (0.25 + s**2) + 0.1 * torch.tanh(x) / (1 + s)


class Recorder(nn.Module):
    """A network that records its arguments and returns a constant."""

    def __init__(self, answer):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answer = answer

    def forward(self, x, noise, augment=None):
        self.x, self.noise, self.augment = x, noise, augment
        return torch.full_like(x, self.answer)


class GaussianNet(nn.Module):
    """The network F of the ideal denoiser D* for data N(mean, std²): c_out F = D* − c_skip x."""

    def __init__(self, mean, std, sigma_data):
        super().__init__()
        self.mean, self.std, self.sigma_data = mean, std, sigma_data

    def forward(self, x, noise, augment=None):
        s = (4 * noise).exp().reshape(-1, 1, 1, 1)
        root = (s**2 + self.sigma_data**2).sqrt()
        noisy = x * root
        ideal = (noisy * self.std**2 + self.mean * s**2) / (self.std**2 + s**2)
        return (ideal - noisy * self.sigma_data**2 / root**2) * root / (s * self.sigma_data)


@pytest.mark.parametrize("steps", [18, 40])
def test_schedule_and_deterministic_sampler_match_the_reference(golden, steps):
    g = golden("edm_heun")
    assert_close("noise levels against EDM's", sigma_schedule(steps, **SCHEDULE), g[f"sigmas_{steps}"], 1e-12)
    out = HeunSampler(steps, **SCHEDULE)(reference_denoiser, g[f"latents_{steps}"])
    assert_close("Heun's sampler against EDM's", out, g[f"out_{steps}"], 1e-10)


def test_stochastic_sampler_matches_the_reference(golden):
    g = golden("edm_heun")
    sampler = HeunSampler(12, **SCHEDULE, s_churn=10, s_min=0.05, s_max=50, s_noise=1.003)
    out = sampler(reference_denoiser, g["churn_latents"], iter(g["churn_noises"]).__next__)
    assert_close("the stochastic sampler against EDM's", out, g["churn_out"], 1e-10)


def test_a_stochastic_sampler_draws_once_in_each_step_even_where_it_adds_nothing():
    calls = []
    sampler = HeunSampler(12, **SCHEDULE, s_churn=10, s_min=1.0, s_max=2.0)
    x = torch.randn(1, 1, 2, 2)
    sampler(reference_denoiser, x, lambda: calls.append(1) or torch.randn_like(x))
    assert len(calls) == 12


def test_churn_without_upper_limit_applies_to_the_highest_noise_level():
    seen = []
    sampler = HeunSampler(4, **SCHEDULE, s_churn=1.0)
    x = torch.randn(1, 1, 2, 2)
    sampler(lambda x, s: seen.append(s.item()) or x * 0, x, lambda: torch.zeros_like(x))
    assert seen[0] == pytest.approx(80 * 1.25)


def test_the_schedule_of_one_step_is_the_highest_noise_level_and_0():
    assert sigma_schedule(1, **SCHEDULE).tolist() == pytest.approx([80, 0])


def test_sampling_converges_to_the_analytic_solution_of_gaussian_data_with_second_order():
    mean, std = 0.3, 0.5
    denoiser = Denoiser(GaussianNet(mean, std, sigma_data=0.4), sigma_data=0.4)
    noise = torch.randn(4, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # The probability flow conserves (x − mean) / sqrt(std² + sigma²); it ends at sigma = 0.
    exact = mean + (noise * 80 - mean) * std / math.hypot(std, 80)
    errors = [(HeunSampler(n, **SCHEDULE)(denoiser, noise) - exact).abs().max().item() for n in (32, 64, 128)]
    assert errors[0] < 0.02
    assert errors[0] / errors[1] > 3.3
    assert errors[1] / errors[2] > 3.3


def test_stochastic_sampling_reproduces_the_variance_of_gaussian_data():
    std = 0.5
    denoiser = Denoiser(GaussianNet(0.0, std, sigma_data=0.5), sigma_data=0.5)
    g = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(64, 1, 16, 16, dtype=torch.float64, generator=g)  # noqa: E731
    out = HeunSampler(64, **SCHEDULE, s_churn=20)(denoiser, draw(), draw)
    assert out.std().item() == pytest.approx(std, rel=0.02)


def test_preconditioning_has_the_closed_forms_of_table_1():
    net, d = Recorder(answer=2.0), 0.5
    x = torch.randn(3, 1, 4, 4)
    sigma = torch.tensor([0.01, 0.5, 20.0])
    labels = torch.randn(3, 9)
    out = Denoiser(net, d)(x, sigma, labels)
    for i, s in enumerate(sigma.tolist()):
        c_skip, c_out = d**2 / (s**2 + d**2), s * d / math.sqrt(s**2 + d**2)
        assert torch.allclose(out[i], c_skip * x[i] + c_out * 2.0, atol=1e-6)
        assert torch.allclose(net.x[i], x[i] / math.sqrt(s**2 + d**2))
        assert net.noise[i].item() == pytest.approx(math.log(s) / 4, abs=1e-6)
    assert net.augment is labels


def test_preconditioning_gives_input_and_target_unit_variance():
    g, d, s = torch.Generator().manual_seed(0), 0.5, 0.8
    y = torch.randn(64, 1, 32, 32, generator=g) * d
    x = y + torch.randn(y.shape, generator=g) * s
    net = Recorder(answer=0.0)
    skipped = Denoiser(net, d)(x, torch.full((64,), s))
    one = Recorder(answer=1.0)
    c_out = (Denoiser(one, d)(x, torch.full((64,), s)) - skipped).mean()
    assert net.x.std().item() == pytest.approx(1, rel=0.01)
    assert ((y - skipped) / c_out).std().item() == pytest.approx(1, rel=0.01)


def test_images_and_network_have_separate_dtypes():
    net = Recorder(answer=1.0)
    out = Denoiser(net, 0.5)(torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    assert net.x.dtype == net.noise.dtype == torch.float32
    assert out.dtype == torch.float64
    double = Denoiser(Recorder(answer=1.0), 0.5).double()
    double(torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    assert double.net.x.dtype == torch.float64


def test_autocast_affects_the_network_but_not_the_preconditioning():
    class Reduced(nn.Conv2d):
        def forward(self, x, noise, augment=None):
            self.answer = super().forward(x)
            return self.answer

    net = Reduced(1, 1, 1)
    x = torch.randn(2, 1, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = Denoiser(net, 0.5)(x, torch.tensor([1e-4, 1e-4]))
    assert net.answer.dtype == torch.bfloat16
    assert out.dtype == torch.float32
    assert torch.allclose(out, x, atol=1e-3, rtol=0)  # x rounded to bfloat16 would deviate more


def test_the_loss_of_a_zero_network_is_the_weighted_distance_to_the_skipped_image():
    loss, d = EDMLoss(-1.2, 1.2, 0.5), 0.5
    images, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    sigma = torch.tensor([0.1, 1.0, 7.0])
    out = loss(Denoiser(Recorder(answer=0.0), d), images, sigma, noise)
    for i, s in enumerate(sigma.tolist()):
        weight = (s**2 + d**2) / (s * d) ** 2
        error = d**2 / (s**2 + d**2) * (images[i] + s * noise[i]) - images[i]
        assert out[i].item() == pytest.approx((weight * error.square().sum()).item(), rel=1e-4)


def test_the_ideal_denoiser_of_gaussian_data_has_the_analytic_loss():
    std, d, s = 0.7, 0.5, 0.9
    g = torch.Generator().manual_seed(0)
    images = torch.randn(256, 1, 16, 16, generator=g) * std
    noise = torch.randn(images.shape, generator=g)
    loss = EDMLoss(-1.2, 1.2, d)(Denoiser(GaussianNet(0.0, std, d), d), images, torch.full((256,), s), noise)
    posterior = std**2 * s**2 / (std**2 + s**2)
    expected = 256 * posterior * (s**2 + d**2) / (s * d) ** 2
    assert loss.mean().item() == pytest.approx(expected, rel=0.02)


def test_noise_levels_are_log_normal_and_random_values_repeatable():
    loss = EDMLoss(-1.2, 1.2, 0.5)
    logs = np.log([loss.draw(np.random.default_rng(i), (1, 1, 1))["sigma"] for i in range(4000)])
    assert logs.mean() == pytest.approx(-1.2, abs=0.06)
    assert logs.std() == pytest.approx(1.2, abs=0.05)
    a, b = (loss.draw(np.random.default_rng(5), (3, 4, 4)) for _ in range(2))
    assert np.array_equal(a["noise"], b["noise"])
    assert a["noise"].shape == (3, 4, 4)
    assert a["noise"].dtype == a["sigma"].dtype == np.float32


@pytest.mark.parametrize(
    ("augment", "labels"),
    [
        ({"probability": 0.0, "xflip": False}, 0),
        ({"probability": 0.0, "xflip": True}, 9),
        ({"probability": 0.5, "xflip": False}, 9),
    ],
)
def test_the_network_gets_augmentation_labels_if_there_is_augmentation(augment, labels):
    process = EDM(sigma_data=0.5, p_mean=-1.2, p_std=1.2, augment=augment)
    assert process.augment_labels == labels
    drawn = [process.draw(np.random.default_rng(i), (1, 8, 8)) for i in range(4)]
    drawn = {name: torch.from_numpy(np.stack([d[name] for d in drawn])) for name in drawn[0]}
    net = Recorder(answer=0.0)
    losses = process.losses(process.denoiser(net), torch.rand(4, 1, 8, 8), drawn)
    assert losses.shape == (4,)
    assert (net.augment is None) == (labels == 0)


def test_images_mirrored_without_a_label_leave_the_network_without_labels():
    settings = {"sigma_data": 0.5, "p_mean": -1.2, "p_std": 1.2, "augment": {"probability": 0.0, "xflip": False}}
    process = EDM(**settings, xflip=True)
    assert (process.xflip, process.augment_labels, EDM(**settings).xflip) == (True, 0, False)
    drawn = process.draw(np.random.default_rng(0), (1, 8, 8))
    assert sorted(drawn) == ["noise", "sigma"]  # the loader draws and mirrors


def test_the_loss_is_that_of_the_augmented_image():
    process = EDM(sigma_data=0.5, p_mean=-1.2, p_std=1.2, augment={"probability": 0.0, "xflip": True})
    images, noise = torch.rand(1, 1, 8, 8), torch.randn(1, 1, 8, 8)
    flip = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]])
    denoiser = process.denoiser(Recorder(answer=0.3))
    out = process.losses(denoiser, images, {"sigma": torch.ones(1), "noise": noise, "augment": flip})
    assert torch.equal(out, process.loss(denoiser, images.flip(3), torch.ones(1), noise))


def test_a_sampler_uses_its_own_settings_and_ignores_others():
    settings = {"kind": "heun", "images": 50, "steps": 18, **SCHEDULE, "s_churn": 0, "s_max": None}
    process = EDM(sigma_data=0.5, p_mean=-1.2, p_std=1.2, augment={"probability": 0, "xflip": False})
    assert samplers.build(process, settings) == HeunSampler(18, 0.002, 80, 7)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"sigma_min": 90}, {"sigma_min": 0}, {"rho": 0}, {"s_churn": -1}])
def test_invalid_settings_of_the_sampler_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HeunSampler(**{"steps": 18, **SCHEDULE, **wrong})


@pytest.mark.parametrize("wrong", [{"p_std": 0}, {"sigma_data": -1.0}])
def test_a_loss_without_positive_standard_deviations_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EDMLoss(**{"p_mean": -1.2, "p_std": 1.2, "sigma_data": 0.5, **wrong})
