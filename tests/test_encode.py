"""Latents: the VAE's moments of each image and of its mirror image, and of nothing else than the manifest says."""

import numpy as np
import pytest
import torch
from helpers.precision import tf32_products
from safetensors.torch import load_file

from diffit import encode
from diffit.cli import UserError
from diffit.numerics.pixels import to_network_range
from diffit.store import files, tars
from diffit.store.manifest import gather, read_images, read_manifest, shard_paths
from diffit.weights import vae

SHARD = "0-of-2.tar"


def test_a_member_holds_the_moments_of_an_image_and_of_its_mirror_image(labelled, small_vae, latents):
    loaded = vae.load(small_vae)
    (key, image, label), (latent_key, latent) = next(read_images(labelled)), next(tars.read_tar(latents / SHARD))
    assert (latent_key, latent["cls"]) == (key, label)
    assert latent["npy"].shape == (2, 2, 4, 4, 4) and latent["npy"].dtype == np.float16
    pixels = to_network_range(torch.from_numpy(image).permute(2, 0, 1)[None])
    for moments, seen in zip(latent["npy"], (pixels, pixels.flip(3)), strict=True):
        assert np.allclose(moments, loaded.moments(seen)[0].numpy(), rtol=2e-3, atol=1e-3)
    assert not np.allclose(latent["npy"][0], latent["npy"][1], atol=1e-2)


def test_each_image_of_the_data_set_has_its_latent_and_label_in_order(labelled, latents):
    pairs = [(key, label) for key, _image, label in read_images(labelled)]
    encoded = [(key, m["cls"]) for shard in shard_paths(latents) for key, m in tars.read_tar(shard)]
    assert encoded == pairs and len(pairs) == 1797


def test_the_manifest_says_of_which_images_and_by_which_vae(labelled, small_vae, latents):
    manifest, images = read_manifest(latents), read_manifest(labelled)
    assert manifest["vae"] == vae.read_facts(small_vae)
    assert manifest["images_sha256"] == images["content_sha256"]
    assert (manifest["resolution"], manifest["resize"], manifest["classes"]) == (8, "center-crop", 10)


def test_a_shard_made_again_has_the_same_bytes(labelled, small_vae, latents, tmp_path):
    again = encode.encode(labelled / SHARD, small_vae, tmp_path / SHARD)
    assert again["sha256"] == files.sha256(latents / SHARD)


def test_encoding_computes_in_exact_float32(labelled, small_vae, tmp_path, monkeypatch):
    seen, moments = set(), vae.VAE.moments
    monkeypatch.setattr(vae.VAE, "moments", lambda *args: seen.add(tf32_products()) or moments(*args))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    encode.encode(labelled / SHARD, small_vae, tmp_path / SHARD)
    assert seen == {(False, False)}


def test_a_shard_that_is_there_is_kept(labelled, small_vae, tmp_path):
    encode.encode(labelled / SHARD, small_vae, tmp_path / SHARD)
    made = (tmp_path / SHARD).stat().st_mtime_ns
    encode.encode(labelled / SHARD, small_vae, tmp_path / SHARD)
    assert (tmp_path / SHARD).stat().st_mtime_ns == made


def test_latents_by_another_vae_or_at_another_scale_are_refused(labelled, small_vae, latents, tmp_path):
    model = vae.load(small_vae).model
    vae.write(tmp_path / "scaled", model, 0.5)
    with pytest.raises(UserError, match=r"holds other latents \(vae\.scale: .* → 0\.5\)"):
        encode.encode(labelled / SHARD, tmp_path / "scaled", latents / SHARD)
    encode.encode(labelled / SHARD, small_vae, tmp_path / "mixed" / SHARD)
    encode.encode(labelled / "1-of-2.tar", tmp_path / "scaled", tmp_path / "mixed" / "1-of-2.tar")
    with pytest.raises(UserError, match="disagree: vae is"):
        gather(tmp_path / "mixed", 2)


def test_latents_that_are_not_finite_are_refused_and_leave_nothing(labelled, small_vae, tmp_path):
    model = vae.load(small_vae).model
    weights = load_file(small_vae / vae.WEIGHTS)
    weights["quant_conv.bias"][0] = 1e6  # beyond float16
    model.load_state_dict(weights)
    vae.write(tmp_path / "wild", model, 1.0)
    with pytest.raises(UserError, match=r"the latent of 00000000 in .* is not finite in float16"):
        encode.encode(labelled / SHARD, tmp_path / "wild", tmp_path / "out" / SHARD)
    assert list((tmp_path / "out").iterdir()) == []
