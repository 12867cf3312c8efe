"""The augmentation transforms pixels as its parameters specify, and its labels describe the transformation."""

import math

import numpy as np
import pytest
import torch
from helpers.differences import assert_close

from diffit.process.augment import PARAMETERS, AugmentPipe

EVERYTHING = AugmentPipe(p=1.0, xflip=True)


def parameters(batch=1, **values):
    p = torch.zeros(batch, len(PARAMETERS))
    for name, value in values.items():
        p[:, PARAMETERS.index(name)] = value
    return p


def noise(batch=1, size=32, seed=0):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def wave(y, x):
    """A smooth image as a function of pixel coordinates relative to the center, with periods of 8 to 16 pixels."""
    return 0.5 * torch.sin(0.4 * x + 0.5 * y) + 0.4 * torch.cos(0.7 * x - 0.2 * y)


def picture(transform=lambda y, x: (y, x)):
    place = torch.arange(32) - 15.5
    return wave(*transform(place[:, None].expand(32, 32), place[None].expand(32, 32)))[None, None]


def error_inside(a, b, margin=8):
    return (a - b)[..., margin:-margin, margin:-margin].abs().max().item()


@pytest.mark.parametrize(("name", "axis"), [("xflip", 3), ("yflip", 2)])
def test_flips_are_exact(name, axis):
    x = noise()
    assert torch.equal(EVERYTHING(x, parameters(**{name: 1}))[0], x.flip(axis))


def test_an_unchanged_image_keeps_its_exact_values_and_gets_zero_labels():
    x = noise()
    out, labels = EVERYTHING(x, parameters())
    assert torch.equal(out, x)
    assert torch.equal(labels, torch.zeros(1, 9))


def test_the_result_is_edms_for_the_same_parameters(golden):
    g = golden("edm_augment")
    out, _ = EVERYTHING(g["images"], g["parameters"])
    assert_close("augmentation against EDM's, same draws", out, g["augmented"], 1e-4)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("pixels", [3, -7, 28, -28, 43])
def test_a_shift_by_whole_pixels_moves_the_image_reflected_without_its_outermost_pixels_between_zeros(axis, pixels):
    x = noise(size=32)
    out, _ = EVERYTHING(x, parameters(**{"shift_y" if axis == 2 else "shift_x": pixels / 4}))
    extended = np.pad(x.numpy(), [(0, 0), (0, 0), (31, 31), (31, 31)], mode="reflect")
    extended = np.pad(extended, [(0, 0), (0, 0), (32, 32), (32, 32)])
    expected = torch.from_numpy(np.roll(extended, pixels, axis)[..., 63:95, 63:95].copy())
    if abs(pixels) > 31:  # the filter blurs the edge to the zeros
        out, expected = out.narrow(axis, 0, 9), expected.narrow(axis, 0, 9)
        assert not expected.any()
    assert torch.allclose(out, expected, atol=5e-5)


@pytest.mark.parametrize("turns", [-1, 1, 2])
def test_quarter_turns_are_nearly_rot90_of_a_smooth_image(turns):
    x = picture()
    out, _ = EVERYTHING(x, parameters(rotation=-turns * math.pi / 2))  # rot90 turns x to −y
    assert torch.allclose(out, torch.rot90(x, turns, (2, 3)), atol=0.07)


def test_a_shift_of_one_standard_deviation_is_an_eighth_of_the_side_to_the_right_and_down():
    out, _ = EVERYTHING(picture(), parameters(shift_x=1.0, shift_y=-0.8))
    assert error_inside(out, picture(lambda y, x: (y + 0.8 * 4, x - 4.0))) < 0.03


def test_a_scale_of_one_standard_deviation_enlarges_by_a_fifth_of_an_octave():
    out, _ = EVERYTHING(picture(), parameters(scale=1.0))
    assert error_inside(out, picture(lambda y, x: (y / 2**0.2, x / 2**0.2))) < 0.03


def test_a_rotation_turns_the_x_axis_towards_the_y_axis():
    a = 0.5
    out, _ = EVERYTHING(picture(), parameters(rotation=a))
    turned = picture(lambda y, x: (y * math.cos(a) - x * math.sin(a), x * math.cos(a) + y * math.sin(a)))
    assert error_inside(out, turned) < 0.03


def test_a_squeeze_stretches_along_its_direction_and_shrinks_across_it():
    stretch = 2**0.2
    along_x, _ = EVERYTHING(picture(), parameters(squeeze=1.0, direction=0.0))
    along_y, _ = EVERYTHING(picture(), parameters(squeeze=1.0, direction=math.pi / 2))
    assert error_inside(along_x, picture(lambda y, x: (y * stretch, x / stretch))) < 0.04
    assert error_inside(along_y, picture(lambda y, x: (y / stretch, x * stretch))) < 0.04


def test_the_order_is_flip_rotation_squeeze_shift():
    values = {"xflip": 1, "rotation": 0.7, "squeeze": 1.0, "direction": 0.4, "shift_x": 0.5}
    together, _ = EVERYTHING(picture(), parameters(**values))
    one_by_one = picture()
    for names in (["xflip"], ["rotation"], ["squeeze", "direction"], ["shift_x"]):
        one_by_one, _ = EVERYTHING(one_by_one, parameters(**{name: values[name] for name in names}))
    assert error_inside(together, one_by_one, margin=12) < 0.06


def test_a_constant_image_stays_constant_if_no_zeros_come_into_view():
    gray = torch.full((64, 3, 16, 16), 0.3)
    p = torch.from_numpy(np.stack([EVERYTHING.draw(np.random.default_rng(i)) for i in range(64)]))
    p[:, 2] = p[:, 2].abs()  # enlarge only
    p[:, [4, 6, 7]] /= 2
    assert torch.allclose(EVERYTHING(gray, p)[0], gray, atol=1e-5)


def test_a_wide_image_is_rotated_by_the_same_angle():
    x = torch.zeros(1, 1, 16, 32)
    x[..., 7:9, 18:22] = 1.0  # a horizontal bar right of the center
    out, _ = EVERYTHING(x, parameters(rotation=math.pi / 2))
    expected = torch.zeros_like(x)
    expected[..., 10:14, 15:17] = 1.0  # a vertical bar below it
    assert torch.allclose(out[..., 8:24], expected[..., 8:24], atol=0.08)  # further outside, the reflected bar appears


def test_labels_follow_from_the_parameters():
    values = {"xflip": 1, "yflip": 1, "scale": 0.5, "rotation": 1.0, "squeeze": 2.0, "direction": 0.3}
    values |= {"shift_x": -1.0, "shift_y": 0.25}
    _, labels = EVERYTHING(noise(), parameters(**values))
    expected = [1, 1, 0.5, math.cos(1) - 1, math.sin(1), 2 * math.cos(0.3), 2 * math.sin(0.3), -1, 0.25]
    assert labels[0].tolist() == pytest.approx(expected)


def test_an_image_does_not_depend_on_its_batch():
    x = noise(batch=5)
    p = torch.from_numpy(np.stack([EVERYTHING.draw(np.random.default_rng(i)) for i in range(5)]))
    together, _ = EVERYTHING(x, p)
    alone = torch.cat([EVERYTHING(x[i : i + 1], p[i : i + 1])[0] for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_parameters_are_a_function_of_the_generator():
    a, b, c = (AugmentPipe(0.5, True).draw(np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert a.dtype == np.float32


def test_transformations_have_probability_p_and_mirroring_one_half():
    drawn = np.stack([AugmentPipe(0.12, True).draw(np.random.default_rng(i)) for i in range(4000)])
    rates = dict(zip(PARAMETERS, (drawn != 0).mean(axis=0), strict=True))
    assert rates["xflip"] == pytest.approx(0.5, abs=0.03)
    assert rates["yflip"] == pytest.approx(0.06, abs=0.015)  # p times one half
    assert rates["direction"] == pytest.approx(0.06, abs=0.015)  # p times one half
    for name in set(PARAMETERS[2:]) - {"direction"}:
        assert rates[name] == pytest.approx(0.12, abs=0.02), name
    always = np.stack([EVERYTHING.draw(np.random.default_rng(i)) for i in range(4000)])
    for name in ("scale", "squeeze", "shift_x", "shift_y"):
        assert always[:, PARAMETERS.index(name)].std() == pytest.approx(1, abs=0.05), name
    for name, fraction in {"rotation": 1, "direction": 1 / 2}.items():
        std = math.pi * math.sqrt(fraction / 3)
        assert always[:, PARAMETERS.index(name)].std() == pytest.approx(std, abs=0.05), name


def test_with_probability_0_only_mirroring_remains_and_can_be_turned_off():
    mirrored = np.stack([AugmentPipe(0.0, True).draw(np.random.default_rng(i)) for i in range(200)])
    assert set(mirrored[:, 0]) == {0, 1}
    assert not mirrored[:, 1:].any()
    still = np.stack([AugmentPipe(0.0, False).draw(np.random.default_rng(i)) for i in range(200)])
    assert not still.any()


def test_a_probability_above_one_is_refused():
    with pytest.raises(ValueError, match=r"1\.2"):
        AugmentPipe(1.2, True)


def test_autocast_does_not_reduce_the_precision_of_pixels():
    x, p = noise(), parameters(rotation=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = EVERYTHING(x, p)
    assert torch.equal(inside, EVERYTHING(x, p)[0])


def test_half_of_the_squeezes_go_along_the_axes():
    drawn = np.stack([AugmentPipe(1.0, False).draw(np.random.default_rng(i)) for i in range(400)])
    squeezed, direction = drawn[:, PARAMETERS.index("squeeze")], drawn[:, PARAMETERS.index("direction")]
    assert (squeezed != 0).all()
    assert 0.4 < (direction == 0).mean() < 0.6
