"""ADM's process against closed forms, reference values, and analytic solutions for Gaussian data."""

import math

import numpy as np
import pytest
import torch
from helpers.differences import assert_close
from helpers.goldens import GOLDENS, released
from torch import nn

from diffit.cli import UserError
from diffit.nets.latent import LatentDiffiT, load_released
from diffit.nets.layers import cached_position_bias
from diffit.numerics import rng
from diffit.process import samplers
from diffit.process.ddpm import DDPM, Denoiser, HybridLoss, decoder_nll, gaussian_kl
from diffit.process.ddpm_samplers import AncestralSampler, DDIMSampler
from diffit.process.discrete_time import LinearSchedule, Step, evenly_spaced, step_coefficients

SCHEDULE = LinearSchedule(1000)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def step_of(t, signal=SCHEDULE.signal):
    return Step(*step_coefficients(signal)[:, t].tolist())


def constantly(epsilon, fraction):
    """A denoiser that always returns these values [B, C, H, W]."""
    return lambda x, t, *condition: torch.cat([epsilon, fraction], dim=1)


class Recorder(nn.Module):
    """A network that records its arguments and returns zeros."""

    class config:  # noqa: N801
        num_classes, channels = 5, 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, labels):
        self.x, self.t, self.labels = x, t, labels
        return torch.zeros_like(x).repeat(1, 2, 1, 1)


@pytest.mark.parametrize("name", GOLDENS)
def test_losses_equal_the_reference(golden, name):
    g = golden(name)
    net = LatentDiffiT(GOLDENS[name])
    load_released(net, released(g))
    process = DDPM(1000, label_dropout=0.1)
    drawn = {"timestep": g["t"], "noise": g["loss.noise"], "labels": g["y"], "hidden": torch.zeros(4, dtype=torch.bool)}
    with torch.no_grad():
        terms = process.loss.terms(process.denoiser(net), g["loss.x_start"], g["t"], g["loss.noise"], g["y"])
        losses = process.losses(process.denoiser(net), g["loss.x_start"], drawn)
    for ours, theirs in zip((*terms, losses), ("mse", "vb", "loss"), strict=True):
        assert_close("latent losses against the released code", ours, g[f"loss.{theirs}"], 1e-5)


@pytest.mark.parametrize("name", GOLDENS)
def test_ten_ancestral_steps_with_guidance_equal_the_reference(golden, name):
    g = golden(name)
    net = LatentDiffiT(GOLDENS[name])
    load_released(net, released(g))
    process = DDPM(1000, label_dropout=0.1)
    kind = "constant" if "constant" in name else "power-cosine"
    guidance = {"kind": kind, "weight": 4.4, "power": 4, "channels": 3, "tolerance": 0.0}
    predict = process.guided(process.denoiser(net), g["cfg_y"][:2], {"guidance": guidance})
    with cached_position_bias(net):
        sampler = samplers.build(process, {"kind": "ddpm", "steps": 10})
        out = sampler(predict, g["sample.z"], iter(g["sample.noises"]).__next__)
    assert evenly_spaced(1000, 10) == g["sample.timesteps"].tolist()
    assert_close("ten ancestral steps against the released code", out, g["sample.out"], 1e-5)


def adms_timesteps(timesteps: int, steps: int) -> set[int]:
    """ADM's rule for one section: add up the stride in floating point, round each sum, and keep a set."""
    stride, place, visited = (timesteps - 1) / (steps - 1) if steps > 1 else 1, 0.0, set()
    for _ in range(steps):
        visited.add(round(place))
        place += stride
    return visited


@pytest.mark.parametrize("timesteps", [1000, 100, 21])
def test_respaced_timesteps_equal_adms_for_every_number_of_steps(timesteps):
    for steps in range(1, timesteps + 1):
        assert evenly_spaced(timesteps, steps) == sorted(adms_timesteps(timesteps, steps)), steps


@pytest.mark.parametrize(
    "expected",
    [
        [0],
        [0, 999],
        [0, 500, 999],  # 499.5 is rounded to the even neighbour
        [0, 166, 333, 500, 666, 832, 999],  # and so is 832.5
        # 10 · 49.95 is 499.5, but 49.95 added up 10 times is less.
        [0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 499, 549, 599, 649, 699, 749, 799, 849, 899, 949, 999],
        [
            0, 42, 83, 125, 166, 208, 250, 291, 333, 375, 416, 458, 500,
            541, 583, 624, 666, 708, 749, 791, 832, 874, 916, 957, 999,
        ],
    ],
    ids=len,
)  # fmt: skip
def test_respaced_timesteps_of_few_steps(expected):
    assert evenly_spaced(1000, len(expected)) == expected


@pytest.mark.parametrize("timesteps", [1000, 100])
def test_betas_rise_linearly_and_add_the_same_noise_in_fewer_timesteps(timesteps):
    signal = LinearSchedule(timesteps).signal
    betas = step_coefficients(signal)[5].exp()
    assert betas[0].item() == pytest.approx(1e-4 * 1000 / timesteps)
    assert betas[-1].item() == pytest.approx(0.02 * 1000 / timesteps)
    assert betas.diff().std() < 1e-12
    assert -math.log(signal[-1]) == pytest.approx(10.05, rel=0.15)


def test_a_noisy_latent_has_the_marginal_distribution_of_all_steps_before_it():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(betas.tolist()):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        if t in (0, 17, 500, 999):
            step = step_of(t)
            assert step.signal == pytest.approx(mean)
            assert step.noise**2 == pytest.approx(variance)
    start, noise = torch.randn(2, 3, dtype=torch.float64)
    assert torch.allclose(step_of(999).start(step_of(999).noisy(start, noise), noise), start, atol=1e-12)


@pytest.mark.parametrize("t", [1, 17, 500, 999])
def test_the_posterior_satisfies_bayes_rule(t):
    a_before, beta = SCHEDULE.signal[t - 1].item(), step_of(t).log_most
    beta = math.exp(beta)
    start, x = 0.7, -1.3
    # Precisions of q(x_before | x_0) and of q(x_t | x_before) as a function of x_before; they add up.
    prior, likelihood = 1 / (1 - a_before), (1 - beta) / beta
    variance = 1 / (prior + likelihood)
    mean = variance * (prior * math.sqrt(a_before) * start + likelihood * x / math.sqrt(1 - beta))
    assert step_of(t).mean(start, x) == pytest.approx(mean, rel=1e-9)
    assert math.exp(step_of(t).log_least) == pytest.approx(variance, rel=1e-9)


def test_the_mean_of_the_last_reverse_step_is_the_latent_and_its_least_variance_that_of_the_step_before():
    assert step_of(0).mean(0.7, -1.3) == pytest.approx(0.7, abs=1e-12)
    assert step_of(0).log_least == step_of(1).log_least


def test_a_respaced_chain_visits_the_same_noise_levels():
    timesteps = evenly_spaced(1000, 50)
    betas = step_coefficients(SCHEDULE.signal[timesteps])[5].exp()
    assert torch.allclose((1 - betas).cumprod(0), SCHEDULE.signal[timesteps], rtol=1e-12, atol=0)


def test_variance_fractions_interpolate_between_least_and_most():
    step = step_of(300)
    logs = step.log_variance(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    assert logs.tolist() == pytest.approx([step.log_least, (step.log_least + step.log_most) / 2, step.log_most])


def test_divergence_of_normal_distributions_equals_torchs():
    mean, other = torch.randn(2, 50, dtype=torch.float64)
    log_variance, other_log_variance = torch.randn(2, 50, dtype=torch.float64)
    p = torch.distributions.Normal(mean, (log_variance / 2).exp())
    q = torch.distributions.Normal(other, (other_log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(p, q)
    assert torch.allclose(gaussian_kl(mean, log_variance, other, other_log_variance), expected, atol=1e-12)


@pytest.mark.parametrize("std", [0.01, 0.5])
def test_the_decoder_distributes_the_mass_of_a_normal_distribution_over_256_levels(std):
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mass = torch.exp(-decoder_nll(levels, torch.tensor(0.3), torch.tensor(2 * math.log(std))))
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    edges = torch.cat([torch.tensor([-math.inf]), (levels[1:] + levels[:-1]) / 2, torch.tensor([math.inf])])
    exact = torch.distributions.Normal(0.3, std).cdf(edges.double()).diff()
    assert (mass - exact).abs().max() < 1e-3


def test_a_perfect_prediction_has_no_error_and_only_the_decoders_bound_at_timestep_0():
    latents, noise = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64).mul(0.4)
    t = torch.tensor([0, 1, 600])
    mse, bound = HybridLoss(SCHEDULE).terms(constantly(noise, torch.full_like(noise, -1)), latents, t, noise)
    assert mse.tolist() == [0, 0, 0]
    assert bound[1:].tolist() == pytest.approx([0, 0], abs=1e-9)
    # At t = 0 the mean is the latent, so the bound in bits is -log2 of the mass within half a bin around it.
    std = math.exp(step_of(1).log_least / 2)
    assert bound[0].item() == pytest.approx(-math.log2(math.erf(1 / 255 / std / math.sqrt(2))), rel=1e-2)


def test_a_wrong_variance_costs_its_divergence_in_bits():
    latents, noise = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64)
    denoiser = constantly(noise, torch.full_like(noise, 1.0))
    _, bound = HybridLoss(SCHEDULE).terms(denoiser, latents, torch.tensor([5]), noise)
    log_ratio = step_of(5).log_least - step_of(5).log_most
    assert bound.item() == pytest.approx((math.exp(log_ratio) - log_ratio - 1) / 2 / math.log(2))


def test_the_noise_learns_only_from_the_error_and_the_variance_only_from_the_bound():
    latents, noise = torch.randn(2, 4, 2, 4, 4)
    epsilon, fraction = (torch.zeros_like(noise).requires_grad_() for _ in range(2))
    t = torch.tensor([0, 3, 400, 999])
    mse, bound = HybridLoss(SCHEDULE).terms(constantly(epsilon, fraction), latents, t, noise)
    of_bound = torch.autograd.grad(bound.sum(), [epsilon, fraction], retain_graph=True)
    of_error = torch.autograd.grad(mse.sum(), [epsilon, fraction])
    felt = [[gradient.abs().amax(dim=(1, 2, 3)) > 0 for gradient in term] for term in (of_error, of_bound)]
    assert [[bool(images.all()) for images in term] for term in felt] == [[True, False], [False, True]]
    assert not felt[0][1].any() and not felt[1][0].any()


def gaussian_predict(mean, std, timesteps):
    """The ideal prediction for data N(mean, std²), with variances for a sampler that visits ``timesteps``."""
    signal = SCHEDULE.signal[timesteps]
    rows = step_coefficients(signal)

    def predict(x, t):
        i = timesteps.index(int(t[0]))
        step, a = Step(*rows[:, i].tolist()), signal[i].item()
        total = a * std**2 + 1 - a
        epsilon = (x - math.sqrt(a) * mean) * math.sqrt(1 - a) / total
        variance = math.exp(step.log_least) + step.from_start**2 * std**2 * (1 - a) / total
        fraction = 2 * (math.log(variance) - step.log_least) / (step.log_most - step.log_least) - 1
        return torch.cat([epsilon, torch.full_like(x, fraction)], dim=1)

    return predict


@pytest.mark.parametrize("steps", [5, 40])
def test_ancestral_sampling_with_ideal_variances_reproduces_gaussian_data_in_any_number_of_steps(steps):
    draw = lambda: torch.randn(64, 1, 16, 16, dtype=torch.float64)  # noqa: E731
    out = AncestralSampler(SCHEDULE, steps)(gaussian_predict(0.3, 0.5, evenly_spaced(1000, steps)), draw(), draw)
    assert out.mean().item() == pytest.approx(0.3, abs=0.02)
    assert out.std().item() == pytest.approx(0.5, rel=0.02)


def test_ddim_converges_to_the_analytic_solution_of_gaussian_data_with_first_order():
    mean, std, a = 0.3, 0.5, SCHEDULE.signal[-1].item()
    noise = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    # The probability flow conserves (x − sqrt(a) mean) / sqrt(a std² + 1 − a).
    exact = mean + std * (noise - math.sqrt(a) * mean) / math.sqrt(a * std**2 + 1 - a)
    errors = []
    for steps in (125, 250, 500):
        predict = gaussian_predict(mean, std, evenly_spaced(1000, steps))
        errors.append((DDIMSampler(SCHEDULE, steps, eta=0)(predict, noise) - exact).abs().max().item())
    assert errors[0] < 0.05
    assert 1.7 < errors[0] / errors[1] < 2.3
    assert 1.7 < errors[1] / errors[2] < 2.3


def test_ddim_with_eta_1_is_ancestral_sampling_with_the_least_variance():
    noise, fresh = torch.randn(2, 1, 4, 4), torch.randn(10, 2, 1, 4, 4)
    predict = lambda x, t: torch.cat([torch.tanh(x), torch.full_like(x, -1)], dim=1)  # noqa: E731
    ancestral = AncestralSampler(SCHEDULE, 10)(predict, noise, iter(fresh).__next__)
    ddim = DDIMSampler(SCHEDULE, 10, eta=1)(predict, noise, iter(fresh).__next__)
    assert torch.allclose(ancestral, ddim, rtol=1e-9)


@pytest.mark.parametrize(
    ("settings", "count"),
    [({"kind": "ddpm"}, 7), ({"kind": "ddim", "eta": 0.5}, 7), ({"kind": "ddim", "eta": 0}, 0)],
)
def test_a_stochastic_sampler_draws_once_in_each_step_and_a_deterministic_one_never(settings, count):
    calls, x = [], torch.randn(1, 1, 2, 2)
    sampler = samplers.build(DDPM(1000, 0.1), {**settings, "steps": 7})
    predict = lambda x, t: torch.cat([x, x * 0], dim=1)  # noqa: E731
    out = sampler(predict, x, lambda: calls.append(1) or torch.randn_like(x))
    assert len(calls) == count
    assert sampler.stochastic == (count > 0)
    assert out.dtype == torch.float64


def test_random_values_depend_only_on_seed_and_image_and_hide_the_configured_share_of_labels():
    process = DDPM(1000, label_dropout=0.1)
    draw = lambda seed, image: process.draw(rng.training(seed, image), (4, 2, 2))  # noqa: E731
    drawn = [draw(0, image) for image in range(2000)]
    assert np.mean([d["hidden"] for d in drawn]) == pytest.approx(0.1, abs=0.02)
    timesteps = [int(d["timestep"]) for d in drawn]
    assert np.mean(timesteps) == pytest.approx(499.5, abs=20)
    assert min(timesteps) < 5 and max(timesteps) in range(995, 1000)
    assert drawn[7].keys() == draw(0, 7).keys() == {"hidden", "timestep", "noise"}
    assert all(np.array_equal(draw(0, 7)[name], value) for name, value in drawn[7].items())
    assert not np.array_equal(draw(1, 7)["noise"], drawn[7]["noise"])
    assert drawn[7]["noise"].shape == (4, 2, 2)
    assert [drawn[7][name].dtype for name in ("hidden", "timestep", "noise")] == [bool, np.int64, np.float32]


@pytest.mark.parametrize(("share", "hidden"), [(0.0, False), (1.0, True)])
def test_a_label_dropout_of_0_or_1_hides_no_or_all_labels(share, hidden):
    process = DDPM(1000, label_dropout=share)
    assert all(process.draw(rng.training(0, i), (1, 1, 1))["hidden"] == hidden for i in range(50))


def test_the_network_gets_no_label_where_it_is_hidden_and_the_timestep_unchanged():
    process, net = DDPM(1000, label_dropout=0.5), Recorder()
    drawn = {
        "timestep": torch.tensor([0, 500, 999]),
        "noise": torch.randn(3, 2, 4, 4),
        "labels": torch.tensor([2, 3, 4]),
        "hidden": torch.tensor([False, True, False]),
    }
    latents = torch.randn(3, 2, 4, 4)
    losses = process.losses(process.denoiser(net), latents, drawn)
    assert net.labels.tolist() == [2, 5, 4]
    assert net.t.tolist() == [0, 500, 999]
    a = SCHEDULE.signal[500].item()
    assert torch.allclose(net.x[1], math.sqrt(a) * latents[1] + math.sqrt(1 - a) * drawn["noise"][1])
    assert losses.shape == (3,)


def test_latents_and_network_have_separate_dtypes():
    net = Recorder()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    out = Denoiser(net)(x, torch.tensor([3]), torch.tensor([0]))
    assert net.x.dtype == torch.float32
    assert out.dtype == torch.float64


def test_a_sampler_uses_its_own_settings_and_ignores_others():
    process = DDPM(1000, 0.1)
    rest = {"images": 50, "block": 8, "guidance": {"kind": "none"}}
    assert samplers.build(process, {"kind": "ddpm", "steps": 250, **rest}) == AncestralSampler(SCHEDULE, 250)
    assert samplers.build(process, {"kind": "ddim", "steps": 50, "eta": 0.0, **rest}) == DDIMSampler(SCHEDULE, 50, 0.0)


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"steps": 1001}, {"eta": -0.1}, {"eta": 1.1}])
def test_an_invalid_setting_of_a_sampler_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        samplers.build(DDPM(1000, 0.1), {"kind": "ddim", "steps": 10, "eta": 0.0, **wrong})


def test_an_unknown_kind_of_sampler_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="there is no sampler 'dim'; did you mean 'ddim'"):
        samplers.build(DDPM(1000, 0.1), {"kind": "dim", "steps": 10})


def test_training_draws_every_timestep_with_the_first_and_the_last_equally_often():
    process, generator = DDPM(21, 0.1), rng.training(0, 0)
    drawn = [int(process.draw(generator, (1, 1, 1))["timestep"]) for _ in range(21 * 200)]
    counts = np.bincount(drawn, minlength=21)
    assert len(counts) == 21 and counts.min() > 140 and counts.max() < 260


@pytest.mark.parametrize("wrong", [{"timesteps": 20}, {"label_dropout": 1.5}, {"label_dropout": -0.1}])
def test_an_invalid_setting_of_the_process_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DDPM(**{"timesteps": 1000, "label_dropout": 0.1, **wrong})
