"""Pictures: every kind that people have decodes to upright RGB, and the crop is ADM's bit for bit."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from diffit.cli import UserError
from diffit.data import images


@pytest.fixture(scope="module")
def photograph(shared_data: Path) -> Image.Image:
    """A real photograph, not square."""
    return images.decode(real(shared_data, "n01440764"), "tench")


def real(shared_data: Path, wnid: str) -> Path:
    return next((shared_data / "imagenet_sample/train" / wnid).glob("*.JPEG"))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_center_crop_is_adms(golden, shared_data: Path):
    crops = golden("adm_center_crop")
    assert len(crops) >= 5
    for name, expected in crops.items():
        wnid, size = name.rsplit("_", 1)
        crop = images.center_crop(images.decode(real(shared_data, wnid), wnid), int(size))
        assert np.array_equal(np.asarray(crop), expected.numpy()), name


def test_grey_becomes_three_equal_channels(photograph):
    pixels = np.asarray(images.decode(encoded(photograph.convert("L"), "PNG"), "grey"))
    assert np.array_equal(pixels, np.repeat(np.asarray(photograph.convert("L"))[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_keeps_its_colours(photograph, kind: str):
    """CMYK values are inverted in our JPEG, as Adobe does, and not in TIFF; both must decode to the same image."""
    cmyk = photograph.resize((64, 64)).convert("CMYK")
    decoded = images.decode(encoded(cmyk, kind), "cmyk")
    distance = np.abs(np.asarray(decoded, float) - np.asarray(cmyk.convert("RGB"), float)).mean()
    assert decoded.mode == "RGB" and distance < 4


def test_palette_without_transparency_keeps_its_colours(photograph):
    palette = photograph.quantize(32)
    decoded = images.decode(encoded(palette, "GIF"), "palette")
    assert np.array_equal(np.asarray(decoded), np.asarray(palette.convert("RGB")))


def test_transparent_palette_entries_become_white():
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 0, 0])
    decoded = np.asarray(images.decode(encoded(palette, "PNG", transparency=1), "palette"))
    assert decoded[0, 0].tolist() == [10, 20, 30] and decoded[0, 1].tolist() == [255, 255, 255]


def test_alpha_is_laid_over_white():
    rgba = Image.fromarray(np.array([[[0, 0, 0, 0], [100, 0, 50, 255], [0, 0, 0, 128]]], np.uint8))
    decoded = np.asarray(images.decode(encoded(rgba, "PNG"), "rgba"))
    assert decoded[0].tolist() == [[255, 255, 255], [100, 0, 50], [127, 127, 127]]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "CMYK", "RGBA"])
def test_as_stored_is_pillows_plain_conversion(photograph, mode: str):
    data = encoded(photograph.resize((20, 30)).convert(mode), "TIFF")
    with Image.open(io.BytesIO(data)) as stored:
        assert np.array_equal(np.asarray(images.decode(data, "x", as_stored=True)), np.asarray(stored.convert("RGB")))


def test_as_stored_drops_transparency():
    rgba = Image.new("RGBA", (9, 9), (100, 0, 50, 0))
    assert images.decode(encoded(rgba, "PNG"), "x", as_stored=True).getpixel((0, 0)) == (100, 0, 50)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str):
    levels = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    decoded = np.asarray(images.decode(encoded(Image.fromarray(levels), kind), "16"))
    assert decoded[0, :, 0].tolist() == [0, 1, 128, 255] and (decoded == decoded[..., :1]).all()


def test_thirty_two_bit_pixels_are_refused_by_name():
    data = encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF")
    with pytest.raises(UserError, match=r"depth\.tif is not a readable image \(its pixels have 32 bits"):
        images.decode(data, "depth.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photograph, orientation: int):
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(photograph, "PNG", exif=exif)
    decoded = images.decode(data, "turned")
    with Image.open(io.BytesIO(data)) as stored:
        expected = ImageOps.exif_transpose(stored)
    assert np.array_equal(np.asarray(decoded), np.asarray(expected))
    assert (decoded.size != photograph.size) == (orientation >= 5)
    assert np.array_equal(np.asarray(images.decode(data, "stored", as_stored=True)), np.asarray(photograph))


@pytest.mark.parametrize(
    ("kind", "keep"),
    [("PNG", 0.5), ("JPEG", 0.5), ("GIF", 0.3), ("TIFF", 0.5), ("WEBP", 0.5), ("PNG", 0.01), ("JPEG", 0.0)],
)
def test_a_picture_cut_short_is_refused_by_name(photograph, kind: str, keep: float):
    data = encoded(photograph, kind)
    with pytest.raises(UserError, match=r"my cat\.x is not a readable image .* and start again"):
        images.decode(data[: int(len(data) * keep)], "my cat.x")


def test_noise_in_a_file_is_a_sentence_or_a_picture(photograph):
    """Whatever a decoder makes of flipped bytes, nothing but UserError leaves."""
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"):
        data = np.frombuffer(encoded(photograph.resize((40, 30)), kind), np.uint8)
        for _ in range(40):
            damaged = data.copy()
            damaged[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            try:
                assert images.decode(damaged.tobytes(), "x").mode == "RGB"
            except UserError as error:
                assert "\n" not in str(error)


def test_text_is_not_an_image(tmp_path: Path):
    path = tmp_path / "notes.jpg"
    path.write_text("dear diary")
    with pytest.raises(UserError, match=r"notes\.jpg is not a readable image \(no known format\)"):
        images.decode(path, str(path))


def test_a_side_below_min_side_names_file_and_key():
    dot = encoded(Image.new("RGB", (1, 1)), "PNG")
    assert images.decode(dot, "dot.png").size == (1, 1)
    with pytest.raises(UserError, match=r"dot\.png has 1 by 1 pixels, below min_side: 8"):
        images.decode(dot, "dot.png", min_side=8)
    with pytest.raises(UserError, match="strip has 900 by 7"):
        images.decode(encoded(Image.new("L", (900, 7)), "PNG"), "strip", min_side=8)


def test_center_crop_enlarges_small_and_copies_exact_pictures(photograph):
    small = photograph.resize((20, 31))
    assert images.center_crop(small, 64).size == (64, 64)
    exact = photograph.resize((64, 64))
    assert np.array_equal(np.asarray(images.center_crop(exact, 64)), np.asarray(exact))


def test_lanczos_is_one_step_for_squares_and_refuses_others(photograph):
    square = photograph.crop((0, 0, 256, 256))
    assert np.array_equal(
        np.asarray(images.resize(square, "lanczos", 64, "x")),
        np.asarray(square.resize((64, 64), Image.Resampling.LANCZOS)),
    )
    with pytest.raises(UserError, match=r"face\.png: \d+ by \d+ pixels are not a square; set resize: center-crop"):
        images.resize(photograph, "lanczos", 64, "face.png")


def test_none_takes_the_resolution_and_refuses_others(photograph):
    square = photograph.crop((0, 0, 64, 64))
    assert images.resize(square, "none", 64, "x") is square
    with pytest.raises(UserError, match=r"face\.png: 64 by 64 pixels are not 32 by 32"):
        images.resize(square, "none", 32, "face.png")


def test_an_unknown_resize_names_those_there_are(photograph):
    with pytest.raises(UserError, match="'stretch' is unknown; choose one of center-crop, lanczos, none"):
        images.resize(photograph, "stretch", 32, "x")


def test_png_is_lossless_and_drops_everything_but_pixels(photograph):
    tagged = photograph.copy()
    tagged.info["icc_profile"] = b"profile"
    data = images.png(tagged)
    assert data == images.png(photograph)
    with Image.open(io.BytesIO(data)) as again:
        assert again.mode == "RGB" and "icc_profile" not in again.info
        assert np.array_equal(np.asarray(again), np.asarray(photograph))


@pytest.mark.parametrize("side", [128, 129])
def test_a_picture_of_twice_the_size_is_halved_by_the_box_filter(photograph, side: int):
    square = photograph.resize((side, side))
    box = square.resize((64, 64), Image.Resampling.BOX)
    assert np.array_equal(np.asarray(images.center_crop(square, 64)), np.asarray(box))
    assert not np.array_equal(np.asarray(box), np.asarray(square.resize((64, 64), Image.Resampling.BICUBIC)))
