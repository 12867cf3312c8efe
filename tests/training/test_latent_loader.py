"""The latent loader, and training and sampling of a latent run."""

import gzip
import json
import os
import shutil
import signal

import numpy as np
import pytest
from helpers.batches import assert_same_for_any_cut
from helpers.training import EVERY_STEP, Training, wait_for_images

from diffit import process
from diffit.cli import UserError
from diffit.sample import sample
from diffit.store import files, tars
from diffit.store.manifest import gather, read_images, read_manifest, shard_paths
from diffit.training.latent_loader import LatentTars, TrainingLatents, stage
from diffit.weights import vae

DDPM = {"kind": "ddpm", "timesteps": 1000, "label_dropout": 0.1, "xflip": False}
NET = {"kind": "latent", "patch_size": 2, "hidden_size": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2}
SAMPLER = {
    "kind": "ddpm", "steps": 2, "images": 20, "first_seed": 0, "block": 8, "precision": "float32", "labels": "random",
    "guidance": {"kind": "power-cosine", "weight": 2.0, "power": 4, "channels": 3, "tolerance": 0},
}  # fmt: skip


def training_set(folder, seed: int = 0, xflip: bool = False) -> TrainingLatents:
    return TrainingLatents(LatentTars(folder), process.build(DDPM).draw, seed, xflip)


def test_mapped_moments_and_labels_are_those_of_the_tars(latents):
    mapped = LatentTars(latents)
    members = [member for shard in shard_paths(latents) for _key, member in tars.read_tar(shard)]
    assert len(mapped) == len(members) == 1797 and mapped.shape == (4, 4, 4)
    for index, member in enumerate(members):
        assert mapped.label(index) == member["cls"]
        for mirrored in (False, True):
            assert np.array_equal(mapped.moments(index, mirrored), member["npy"][int(mirrored)])


def test_ranks_microbatches_and_workers_change_neither_latents_nor_draws(latents):
    steps = range(110, 114)  # they cross into the second epoch at image 1,797
    assert_same_for_any_cut(training_set(latents, xflip=True), steps, 16, [(2, 8, 0), (2, 4, 2)])


def test_each_epoch_samples_the_posterior_of_an_image_again(latents):
    images, scale = training_set(latents), read_manifest(latents)["vae"]["scale"]
    order = images._order
    first, second = ({order[n]: n for n in range(e * 1797, (e + 1) * 1797)} for e in range(2))
    deviations = []
    for index in range(200):
        mean, std = images.tars.moments(index, False).astype(np.float32)
        one, two = (images.__getitems__([numbers[index]])["images"][0].numpy() for numbers in (first, second))
        assert not np.array_equal(one, two)
        deviations += [(one / scale - mean) / std, (two / scale - mean) / std]
    assert np.std(deviations) == pytest.approx(1, abs=0.02) and abs(np.mean(deviations)) < 0.02


def test_training_sees_every_class_from_the_first_to_the_last_with_its_label(latents):
    images = training_set(latents)
    labels = images.__getitems__(list(range(1797)))["labels"].tolist()
    assert np.bincount(labels).tolist() == np.bincount(images.tars.label(np.arange(1797))).tolist()
    assert set(labels) == set(range(10))


@pytest.mark.parametrize("xflip, share", [(False, 0.0), (True, 0.5)])
def test_mirror_images_are_used_only_with_xflip(latents, xflip, share):
    images = training_set(latents, xflip=xflip)
    asked = []
    images.tars.moments = lambda index, mirrored: (asked.append(mirrored), np.zeros((2, 4, 4, 4), np.float16))[1]
    images.__getitems__(list(range(1000)))
    assert np.mean(asked) == pytest.approx(share, abs=0.05)


def reseal(folder, content: bytes) -> None:
    """Replace the content of a shard, with a valid sidecar and manifest."""
    path = folder / "0-of-2.tar"
    record = files.read_json(files.sidecar(path), "")
    facts = {name: value for name, value in record.items() if name not in ("file", "sha256", "bytes")}
    path.write_bytes(content)
    files.seal(path, **facts)
    gather(folder, 2)


def test_compressed_tars_are_refused(latents, tmp_path):
    folder = shutil.copytree(latents, tmp_path / "latents")
    reseal(folder, gzip.compress((folder / "0-of-2.tar").read_bytes()))
    with pytest.raises(UserError, match=r"0-of-2\.tar is compressed or not a tar"):
        LatentTars(folder)


def test_a_damaged_shard_is_refused(latents, tmp_path):
    folder = shutil.copytree(latents, tmp_path / "latents")
    content = bytearray((folder / "1-of-2.tar").read_bytes())
    content[5000] ^= 1
    (folder / "1-of-2.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"1-of-2\.tar is damaged"):
        LatentTars(folder)


def test_images_are_refused_as_latents(labelled):
    with pytest.raises(UserError, match="does not hold latents; encode its images first"):
        LatentTars(labelled)


# ------------------------------------------------------------------------------------------ training and sampling


@pytest.fixture
def latent_training(tiny_run, latents, tmp_path):
    spec = {**tiny_run, "net": NET, "process": DDPM}
    return lambda name="run": Training(spec, latents, tmp_path / name)


def test_a_latent_run_killed_at_any_moment_ends_with_the_bits_of_an_undisturbed_one(latent_training):
    undisturbed, killed = latent_training("undisturbed"), latent_training("killed")
    ended = undisturbed.run(1)
    assert ended.status == 0, ended.message
    for images in (1, 500):
        started = killed.start(1, *EVERY_STEP)
        wait_for_images(killed, started, images)
        os.kill(started.pid, signal.SIGKILL)
        started.communicate()
    ended = killed.run(1)
    assert ended.status == 0, ended.message
    assert killed.weights(1) == undisturbed.weights(1)


def make(run, folder, shards: int, vae_folder, **changes) -> dict:
    for number in range(shards):
        sample({**SAMPLER, **changes}, run, folder / f"{number}-of-{shards}.tar", vae_folder)
    gather(folder, shards)
    return {key: (image, label) for key, image, label in read_images(folder)}


def test_samples_of_a_latent_run(latent_training, labelled, small_vae, tmp_path):
    trained = latent_training()
    assert trained.run(1).status == 0
    run = trained.folder / "1"
    whole = make(run, tmp_path / "1", 1, small_vae)
    assert [image.shape for image, _label in whole.values()] == [(8, 8, 3)] * 20
    assert len({label for _image, label in whole.values()}) > 3

    # The number of shards changes neither an image nor a label.
    cut = make(run, tmp_path / "3", 3, small_vae)
    assert list(cut) == list(whole)
    assert all(np.array_equal(cut[key][0], whole[key][0]) and cut[key][1] == whole[key][1] for key in whole)

    # Balanced labels are the classes in turn.
    balanced = make(run, tmp_path / "balanced", 1, small_vae, labels="balanced")
    assert [label for _image, label in balanced.values()] == [seed % 10 for seed in range(20)]

    manifest = read_manifest(tmp_path / "1")
    assert (manifest["resolution"], manifest["data_sha256"]) == (8, read_manifest(labelled)["content_sha256"])

    # A VAE that is not the run's, or a missing one, is refused.
    vae.write(tmp_path / "scaled", vae.load(small_vae).model, 0.5)
    with pytest.raises(UserError, match=r"is not the VAE of the run \(scale: .* → 0\.5\)"):
        make(run, tmp_path / "other", 1, tmp_path / "scaled")
    with pytest.raises(UserError, match="give the folder of their VAE with --vae"):
        make(run, tmp_path / "none", 1, None)


def test_latents_of_another_vae_do_not_continue_a_run(latent_training, latents, tmp_path):
    first = latent_training()
    assert first.run(1).status == 0
    other = shutil.copytree(latents, tmp_path / "other")
    for number in (0, 1):
        path = other / f"{number}-of-2.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "vae": {**record["vae"], "scale": 0.5}}))
    gather(other, 2)
    first.data = other
    ended = first.run(2)
    assert ended.status == 1
    assert "vae.scale" in ended.message and "Traceback" not in ended.message


def test_staged_latents_train_the_same_weights_and_are_copied_once(latent_training, tmp_path):
    plain, staged = latent_training("plain"), latent_training("staged")
    assert plain.run(1).status == 0
    ended = staged.run(1, "--stage-to", str(tmp_path / "scratch"))
    assert ended.status == 0, ended.message
    assert staged.weights(1) == plain.weights(1)
    (copy,) = (tmp_path / "scratch").iterdir()
    assert copy.name == read_manifest(staged.data)["content_sha256"]
    times = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.tar")}
    assert len(times) == 2

    # A damaged copy is replaced, an intact one is kept.
    content = bytearray((copy / "0-of-2.tar").read_bytes())
    content[5000] ^= 1
    (copy / "0-of-2.tar").write_bytes(content)
    stage(staged.data, copy)
    assert (copy / "1-of-2.tar").stat().st_mtime_ns == times["1-of-2.tar"]
    assert (copy / "0-of-2.tar").read_bytes() == (staged.data / "0-of-2.tar").read_bytes()


def test_a_small_node_local_disk_is_refused_before_anything_is_copied(latents, small_disk):
    disk = small_disk("100k")
    with pytest.raises(UserError, match=r"staging needs .* are free; name a larger disk with --stage-to"):
        stage(latents, disk / "copy")
    assert list((disk / "copy").iterdir()) == []


def test_a_sampler_may_name_another_decoder_of_the_same_latents(latent_training, small_vae, tmp_path):
    trained = latent_training()
    assert trained.run(1).status == 0
    run, facts = trained.folder / "1", files.read_json(small_vae / "vae.json", "")
    other = vae.build(facts["shape"])
    vae.write(tmp_path / "other", other, facts["scale"])
    vae.write(tmp_path / "scaled", other, 0.5)
    own = make(run, tmp_path / "1", 1, small_vae, decoder=None)
    decoded = make(run, tmp_path / "2", 1, tmp_path / "other", decoder="other")
    assert all(own[key][1] == decoded[key][1] and not np.array_equal(own[key][0], decoded[key][0]) for key in own)
    assert read_manifest(tmp_path / "2")["vae_sha256"] == files.read_json(tmp_path / "other/vae.json", "")["sha256"]
    with pytest.raises(UserError, match=r"is not the VAE of the run \(scale"):
        make(run, tmp_path / "3", 1, tmp_path / "scaled", decoder="scaled")
    with pytest.raises(UserError, match=r"is not the VAE of the run \(sha256"):
        make(run, tmp_path / "4", 1, tmp_path / "other", decoder=None)


def test_samples_in_bfloat16_are_near_those_in_float32_and_not_the_same(latent_training, small_vae, tmp_path):
    trained = latent_training()
    assert trained.run(1).status == 0
    exact, rounded = (
        make(trained.folder / "1", tmp_path / precision, 1, small_vae, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    differences = np.stack([exact[key][0].astype(int) - rounded[key][0] for key in exact])
    assert 0 < np.abs(differences).mean() < 5
