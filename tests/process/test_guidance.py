"""Guidance equals the reference, skips passes without effect, and changes only the guided channels."""

import math

import pytest
import torch
from helpers.differences import assert_close
from helpers.goldens import GOLDENS, released

from diffit.nets.latent import LatentDiffiT, load_released
from diffit.process.ddpm import Denoiser
from diffit.process.discrete_time import evenly_spaced
from diffit.process.guidance import Constant, Guidance, PowerCosine

POWER_COSINE = {"kind": "power-cosine", "weight": 4.6, "power": 4, "channels": 3, "tolerance": 0.0}
CONSTANT = {"kind": "constant", "weight": 1.49, "channels": 3, "tolerance": 0.0}
LABELS = torch.tensor([1, 4])


class Shifts:
    """A denoiser that adds the label, or -1 for a hidden label, to its input. It records its batch sizes."""

    num_classes, channels = 5, 4

    def __init__(self):
        self.passes = []

    def __call__(self, x, t, labels, hidden=None):
        self.passes.append(len(x))
        told = labels if hidden is None else labels.masked_fill(hidden, -1)
        epsilon = x + told.to(x.dtype)[:, None, None, None] + t[:, None, None, None] / 1000
        return torch.cat([epsilon, 2 * epsilon], dim=1)


@pytest.fixture
def x():
    return torch.randn(2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def at(t):
    return torch.full((2,), t)


@pytest.mark.parametrize("weight", [4.4, 1.49])
@pytest.mark.parametrize("name", GOLDENS)
def test_guided_predictions_equal_the_reference(golden, name, weight):
    g = golden(name)
    net = LatentDiffiT(GOLDENS[name])
    load_released(net, released(g))
    settings = {**(CONSTANT if "constant" in name else POWER_COSINE), "weight": weight}
    with torch.no_grad():
        out = Guidance.of(settings, 1000)(Denoiser(net), g["cfg_y"][:2])(g["x"][:2], g["cfg_t"][:2])
    expected = g[f"cfg_out_{weight}"][:2]  # the second half of the reference's batch repeats the first
    assert_close("guided predictions against the released code", out, expected, 1e-5)


def test_the_power_cosine_weight_rises_from_1_in_noise_to_its_full_value():
    weight, halfway = PowerCosine(4.6, 4, timesteps=1000), 1000 * (1 - 0.5**0.25)
    weights = weight(torch.tensor([1000, halfway, 0], dtype=torch.float64))
    assert weights.tolist() == pytest.approx([1, 1 + 3.6 / 2, 4.6], abs=1e-12)
    every = weight(torch.arange(1000))
    assert (every.diff() <= 0).all()
    assert weight(torch.tensor([250])).item() == pytest.approx(1 + 3.6 * (1 - math.cos(math.pi * 0.75**4)) / 2)


def test_guidance_extrapolates_from_the_prediction_without_label_to_that_with_label(x):
    denoiser = Shifts()
    out = Guidance(Constant(3.0), channels=None)(denoiser, LABELS)(x, at(500))
    without, with_label = denoiser(x, at(500), at(-1)), denoiser(x, at(500), LABELS)
    expected = without + 3 * (with_label - without)
    assert torch.allclose(out[:, :4], expected[:, :4], atol=1e-12)
    assert denoiser.passes[0] == 4  # both halves in one pass


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_channels_and_variances_come_from_the_prediction_with_label(x, channels):
    out = Guidance(Constant(3.0), channels)(Shifts(), LABELS)(x, at(500))
    with_label = Shifts()(x, at(500), LABELS)
    assert (out[:, :channels] - with_label[:, :channels]).abs().min() > 1
    assert torch.equal(out[:, channels:], with_label[:, channels:])


@pytest.mark.parametrize("settings", [{"kind": "none"}, {**CONSTANT, "weight": 1}, {**POWER_COSINE, "weight": 1}])
def test_a_weight_of_1_gives_the_prediction_with_label_in_one_pass(x, settings):
    denoiser = Shifts()
    out = Guidance.of(settings, 1000)(denoiser, LABELS)(x, at(100))
    assert denoiser.passes == [2]
    assert torch.equal(out, denoiser(x, at(100), LABELS))


@pytest.mark.parametrize(("tolerance", "single"), [(1e-3, 80), (1e-2, 107)])
def test_a_tolerance_skips_the_passes_with_a_weight_near_1_and_changes_little(x, tolerance, single):
    exact, tolerant = Shifts(), Shifts()
    reference = Guidance.of(POWER_COSINE, 1000)(exact, LABELS)
    guided = Guidance.of({**POWER_COSINE, "tolerance": tolerance}, 1000)(tolerant, LABELS)
    label_matters = (LABELS + 1.0)[:, None, None, None]  # change of every value by the label
    for t in evenly_spaced(1000, 250):
        difference = (guided(x, at(t)) - reference(x, at(t))).abs()
        assert (difference[:, :3] <= tolerance * label_matters + 1e-12).all()
        assert torch.equal(difference[:, 3:], torch.zeros_like(difference[:, 3:]))
        if tolerant.passes[-1] == 4:
            assert difference.max() == 0
    assert tolerant.passes.count(2) == single
    assert exact.passes.count(2) <= 3  # where the weight is exactly 1


def test_a_pass_is_skipped_only_if_no_image_of_the_batch_needs_it(x):
    denoiser = Shifts()
    guided = Guidance.of({**POWER_COSINE, "tolerance": 1e-3}, 1000)(denoiser, LABELS)
    guided(x, torch.tensor([999, 0]))
    guided(x, torch.tensor([999, 998]))
    assert denoiser.passes == [4, 2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "linear"}, "guidance.kind"),
        ({"channels": 0}, "guidance.channels"),
        ({"tolerance": -1e-3}, "guidance.tolerance"),
        ({"power": 0}, "guidance.power"),
        ({"channels": 5}, "guidance.channels 5 is more than the 4"),
    ],
)
def test_invalid_settings_are_refused_by_name(wrong, said):
    with pytest.raises(ValueError, match=said):
        Guidance.of({**POWER_COSINE, **wrong}, 1000)(Shifts(), LABELS)


def test_a_network_without_classes_can_be_sampled_but_not_guided(x):
    denoiser = Shifts()
    denoiser.num_classes = 0
    Guidance.of({"kind": "none"}, 1000)(denoiser, LABELS)(x, at(3))
    with pytest.raises(ValueError, match=r"guidance.weight 4.6 .* no classes"):
        Guidance.of(POWER_COSINE, 1000)(denoiser, LABELS)
