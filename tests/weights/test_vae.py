"""VAEs: trained here or published, sealed, with a scale that is stored once."""

import json

import pytest
import torch
from helpers.configurations import SMALL_VAE

from diffit.cli import UserError
from diffit.numerics.pixels import to_network_range
from diffit.store import files
from diffit.training import image_loader, train_vae
from diffit.weights import vae


@pytest.fixture
def images(labelled):
    return to_network_range(image_loader.decoded(labelled)[0][:64])


def test_the_scale_makes_the_latents_of_the_data_one_in_deviation(small_vae, images):
    loaded = vae.load(small_vae)
    mean, std = loaded.moments(images).unbind(1)
    latents = (mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))) * loaded.facts["scale"]
    assert mean.shape == (64, 4, 4, 4) and (std > 0).all()
    assert latents.std().item() == pytest.approx(1, rel=0.05)


def test_scaled_latents_are_decoded_to_what_the_network_gives_for_unscaled_ones(small_vae, images):
    loaded = vae.load(small_vae)
    mean = loaded.moments(images)[:, 0]
    expected = loaded.model.decode(mean).sample
    assert torch.allclose(loaded.decode(mean.double() * loaded.facts["scale"]), expected, atol=1e-5)


def test_the_psnr_in_the_record_is_that_of_the_images_given_back(small_vae, labelled):
    loaded = vae.load(small_vae)
    images = to_network_range(image_loader.decoded(labelled)[0])
    given_back = loaded.decode(loaded.moments(images)[:, 0] * loaded.facts["scale"]).clamp(-1, 1)
    error = ((given_back - images) ** 2).mean()
    record = files.read_json(small_vae / "vae.json", "")
    assert record["psnr"] == pytest.approx(10 * torch.log10(4 / error).item(), abs=0.01)


def test_training_twice_gives_the_same_bytes_and_another_seed_others(labelled, small_vae, tmp_path):
    weights = (small_vae / vae.WEIGHTS).read_bytes()
    train_vae.train(SMALL_VAE, labelled, tmp_path / "again")
    assert (tmp_path / "again" / vae.WEIGHTS).read_bytes() == weights
    train_vae.train({**SMALL_VAE, "seed": 1}, labelled, tmp_path / "other")
    assert (tmp_path / "other" / vae.WEIGHTS).read_bytes() != weights


def test_a_vae_that_loses_too_much_is_refused_and_leaves_nothing(labelled, tmp_path):
    with pytest.raises(UserError, match=r"below least_psnr 60; raise steps or channels"):
        train_vae.train({**SMALL_VAE, "steps": 1, "least_psnr": 60}, labelled, tmp_path / "poor")
    assert not (tmp_path / "poor").exists()


def test_one_that_diffusers_saved_is_taken_over_from_its_folder(small_vae, images, tmp_path):
    original = vae.load(small_vae)
    original.model.save_pretrained(tmp_path / "published")
    vae.fetch(str(tmp_path / "published"), None, 0.18215, tmp_path / "mine")
    taken = vae.load(tmp_path / "mine")
    assert torch.equal(taken.moments(images), original.moments(images))
    assert taken.facts == {**original.facts, "scale": 0.18215}


@pytest.mark.parametrize(
    "key, value, sentence",
    [
        ("scaling_factor", 0.5, r"was published with the scale 0\.5, but the config says 0\.18215; correct scale"),
        ("shift_factor", 0.1, "has a shift_factor, which is not supported; use a VAE without it"),
    ],
)
def test_a_published_vae_of_another_scale_or_with_a_shift_is_refused(small_vae, tmp_path, key, value, sentence):
    vae.load(small_vae).model.save_pretrained(tmp_path / "published")
    config = tmp_path / "published/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    with pytest.raises(UserError, match=sentence):
        vae.fetch(str(tmp_path / "published"), None, 0.18215, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_folder_without_a_vae_is_one_sentence_that_says_what_to_put_there(tmp_path):
    with pytest.raises(UserError, match=r"could not be loaded .*; put its config\.json and weights into a folder"):
        vae.fetch(str(tmp_path), None, 0.5, tmp_path / "mine")


@pytest.mark.parametrize("scale", [None, 0, -1.0, float("nan"), float("inf")])
def test_a_vae_without_a_scale_is_refused(small_vae, tmp_path, scale):
    with pytest.raises(UserError, match="the scale of the VAE is"):
        vae.write(tmp_path / "mine", vae.load(small_vae).model, scale)


def test_damaged_weights_are_refused_by_name(small_vae, tmp_path):
    content = bytearray((small_vae / vae.WEIGHTS).read_bytes())
    content[-1] ^= 1
    (tmp_path / vae.WEIGHTS).write_bytes(content)
    (tmp_path / "vae.json").write_text(json.dumps(files.read_json(small_vae / "vae.json", "")))
    with pytest.raises(UserError, match=r"vae\.safetensors is damaged"):
        vae.load(tmp_path)


def test_a_resolution_that_it_cannot_shorten_is_refused():
    assert vae.latent_size(8, 2) == 4
    with pytest.raises(UserError, match="shortens sides by 2, which does not divide the resolution 9"):
        vae.latent_size(9, 2)
