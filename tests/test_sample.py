"""Generated images depend on their seeds and not on the number of shards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.precision import tf32_products

from diffit.cli import UserError
from diffit.data.shard_ranges import shard_of_blocks
from diffit.nets import build
from diffit.nets.ushaped import UShapedDiffiT
from diffit.numerics import rng
from diffit.numerics.pixels import to_uint8
from diffit.sample import Latents, _label, sample
from diffit.store import files
from diffit.store.manifest import gather, read_images, read_manifest
from diffit.weights import milestone

SAMPLER = {
    "kind": "heun", "steps": 3, "images": 50, "first_seed": 0, "block": 8, "precision": "float32",
    "sigma_min": 0.002, "sigma_max": 80, "rho": 7, "s_churn": 0, "s_min": 0, "s_max": 1e9, "s_noise": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A milestone with random weights, so that its images differ from each other."""
    torch.manual_seed(0)
    net_spec = {
        "kind": "ushaped", "width": 16, "multipliers": [1, 2], "blocks": 1, "window": 4, "head_dim": 8, "mlp_ratio": 2,
        "time_dim": 32, "groups": 4, "dropout": 0.1, "resolution": 8, "channels": 3, "augment_labels": 0,
    }  # fmt: skip
    net = build(net_spec)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    process = {
        "kind": "edm", "sigma_data": 0.5, "p_mean": -1.2, "p_std": 1.2, "augment": {"probability": 0, "xflip": False},
    }  # fmt: skip
    facts = {"net": net_spec, "process": process, "dataset": "digits", "data_sha256": "0" * 64}
    folder = tmp_path_factory.mktemp("runs") / "run" / "7"
    milestone.write(folder, net, {**facts, "kimg": 7, "images_trained": 7000, "commit": "abc"})
    return folder


def pictures(folder) -> dict[str, np.ndarray]:
    return {key: image for key, image, _label in read_images(folder)}


def make(trained, folder, shards: int, **changes) -> dict[str, np.ndarray]:
    for number in range(shards):
        sample({**SAMPLER, **changes}, trained, folder / f"{number}-of-{shards}.tar")
    gather(folder, shards)
    return pictures(folder)


@pytest.mark.parametrize("s_churn", [0, 10])
def test_the_number_of_shards_changes_no_bit(trained, tmp_path, s_churn):
    whole = make(trained, tmp_path / "1", 1, s_churn=s_churn)
    assert list(whole) == [f"{seed:08d}" for seed in range(50)]
    for shards in (2, 3, 7):
        cut = make(trained, tmp_path / str(shards), shards, s_churn=s_churn)
        assert list(cut) == list(whole)
        assert all(np.array_equal(cut[key], whole[key]) for key in whole)


def test_parallel_processes_change_no_bit(trained, tmp_path):
    whole = make(trained, tmp_path / "whole", 1)
    command = [sys.executable, "-m", "diffit.sample", json.dumps(SAMPLER), str(trained)]
    folder = tmp_path / "side by side"
    processes = [subprocess.Popen([*command, str(folder / f"{shard}-of-2.tar")]) for shard in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    gather(folder, 2)
    side_by_side = pictures(folder)
    assert all(np.array_equal(side_by_side[key], whole[key]) for key in whole)


def test_an_image_depends_only_on_its_seed(trained, tmp_path):
    whole = make(trained, tmp_path / "whole", 1)
    later = make(trained, tmp_path / "later", 2, first_seed=13, images=20)
    assert list(later) == [f"{seed:08d}" for seed in range(13, 33)]
    assert all(np.array_equal(later[key], whole[key]) for key in later)
    assert len({image.tobytes() for image in whole.values()}) == 50


def test_samples_name_the_steps_that_the_training_skipped(trained, tmp_path):
    make(trained, tmp_path / "none", 1, images=8)
    assert "skipped_steps" not in read_manifest(tmp_path / "none")
    folder = shutil.copytree(trained, tmp_path / "run" / "7")
    record = files.read_json(folder / "config.json", "")
    files.write_json(folder / "config.json", {**record, "skipped_steps": [7, 12]})
    make(folder, tmp_path / "two", 1, images=8)
    assert read_manifest(tmp_path / "two")["skipped_steps"] == [7, 12]


@pytest.mark.parametrize("block", [1, 5, 50])
def test_another_block_size_agrees_within_one_level_almost_everywhere(trained, tmp_path, block):
    one, other = (make(trained, tmp_path / str(size), 1, block=size) for size in (8, block))
    difference = np.stack([np.abs(one[key].astype(int) - other[key]) for key in one])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_the_same_shard_made_twice_has_the_same_hash(trained, tmp_path):
    for name in ("a", "b"):
        make(trained, tmp_path / name, 1)
    hashes = [read_manifest(tmp_path / name)["content_sha256"] for name in ("a", "b")]
    assert hashes[0] == hashes[1]


def test_a_killed_job_does_not_leave_a_shard(trained, tmp_path):
    spec = json.dumps({**SAMPLER, "images": 5000, "steps": 18})
    out = tmp_path / "out" / "0-of-1.tar"
    process = subprocess.Popen([sys.executable, "-m", "diffit.sample", spec, str(trained), str(out)])
    deadline = time.monotonic() + 240
    while not out.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists() and not out.with_suffix(".json").exists()


def test_the_shards_partition_the_blocks():
    for first, images, block, shards in [(0, 50, 8, 3), (13, 20, 8, 2), (0, 50000, 64, 16), (5, 1, 64, 1)]:
        blocks = [b for shard in range(shards) for b in shard_of_blocks(first, images, block, shard, shards)]
        assert blocks == list(range(first // block, (first + images - 1) // block + 1))


def test_pixels_are_truncated_as_edm_writes_them():
    values = torch.tensor([-2.0, -1.0, -0.9999, 0.0, 0.999, 1.0, 2.0]).reshape(1, 1, 1, 7)
    assert to_uint8(values).flatten().tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_decoded_pixels_are_truncated_as_the_released_sampler_writes_them():
    values = torch.tensor([-2.0, -1.0, -0.9999, 0.0, 0.9999, 1.0, 2.0]).reshape(1, 1, 1, 7)
    canvas = Latents.__new__(Latents)
    canvas.vae = SimpleNamespace(decode=lambda latents: latents)
    assert canvas(values).flatten().tolist() == [0, 0, 0, 127, 254, 255, 255]


def test_random_labels_are_all_classes_equally_often():
    labels = [_label({"labels": "random"}, 10, seed, rng.sampling(seed)) for seed in range(3000)]
    counts = np.bincount(labels, minlength=10)
    assert len(counts) == 10 and counts.min() > 220 and counts.max() < 380


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_float32_products_use_tf32_while_sampling_only_if_the_precision_says_so(
    trained, tmp_path, monkeypatch, precision, tf32
):
    seen, forward = set(), UShapedDiffiT.forward
    monkeypatch.setattr(UShapedDiffiT, "forward", lambda *args: seen.add(tf32_products()) or forward(*args))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not tf32)
    make(trained, tmp_path / "samples", 1, precision=precision, images=2)
    assert seen == {(tf32, tf32)}
    assert tf32_products() == (False, not tf32)


def test_damaged_weights_are_refused_by_name(trained, tmp_path):
    damaged = tmp_path / "run" / "7"
    milestone.publish(trained, damaged)
    weights = damaged / milestone.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.unlink()  # it was a hard link
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"ema\.safetensors is missing or damaged"):
        milestone.load(damaged)


def test_invalid_noise_schedules_are_refused(trained, tmp_path):
    with pytest.raises(UserError, match="sigma_min"):
        sample({**SAMPLER, "sigma_min": 90}, trained, tmp_path / "0-of-1.tar")
