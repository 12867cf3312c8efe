"""Five steps of the trainer equal a training loop that was written a second time, as plainly as possible."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.places import REPOSITORY
from helpers.second_loop import Loop
from safetensors.torch import load_file

from diffit import train
from diffit.cli import UserError
from diffit.numerics.rng import epoch_order
from diffit.runs import metrics_log
from diffit.runs.checkpoints import Checkpoints
from diffit.store import files, tars
from diffit.store.manifest import gather, read_manifest
from diffit.store.members import encode_npy
from diffit.training import image_loader
from diffit.training.ranks import STOP_SIGNALS

STEPS, BATCH = 5, 200  # 1 kimg
TOLERANCE = 1e-6
NO_AUGMENTATION = {"probability": 0, "xflip": False}
TRAINING = {
    "batch": BATCH, "optimizer": "adam", "learning_rate": 2e-4, "betas": [0.8, 0.95], "weight_decay": 0.05,
    "warmup_kimg": 0.5, "clip_norm": 139, "ema_halflife_kimg": 0.4, "ema_rampup": 0.5, "precision": "float32",
}  # fmt: skip
SONG = {
    "kind": "song", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention_resolution": 4, "tmsa": False,
    "dropout": 0.2,
}  # fmt: skip
RUNS = {
    "edm": {
        "dataset": "digits",
        "seed": 3,
        "net": {
            "kind": "ushaped", "width": 8, "multipliers": [1, 2], "blocks": 1, "window": 4, "head_dim": 8,
            "mlp_ratio": 2, "time_dim": 16, "groups": 4, "dropout": 0.3,
        },
        "process": {
            "kind": "edm", "sigma_data": 0.6, "p_mean": -0.7, "p_std": 1.3,
            "augment": {"probability": 0.3, "xflip": True},
        },
        "training": TRAINING,  # the gradient is clipped in steps 1, 3 and 4
    },
    "vp": {
        "dataset": "digits", "seed": 0, "net": {**SONG, "form": "ddpmpp"},
        "process": {"kind": "vp", "augment": NO_AUGMENTATION}, "training": TRAINING,
    },
    "ve": {
        "dataset": "digits", "seed": 1, "net": {**SONG, "form": "ncsnpp"},
        "process": {"kind": "ve", "augment": NO_AUGMENTATION},
        "training": {**TRAINING, "ema_rampup": None, "warmup_kimg": 0, "clip_norm": 1e9},
    },
    "latents": {
        "dataset": "noise",
        "seed": 2,
        "net": {"kind": "latent", "patch_size": 2, "hidden_size": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2},
        "process": {"kind": "ddpm", "timesteps": 1000, "label_dropout": 0.3, "xflip": True},
        "training": {**TRAINING, "optimizer": "adamw", "clip_norm": 0.168, "weight_decay": 0.5},
    },
}  # fmt: skip


@pytest.fixture
def float64():
    """Networks in float64, and the state of the process restored afterwards; see helpers.second_loop."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Latents:
    """A folder of random latents in two tars, of 900 images in 3 classes; image 7 may have an infinite value.

    Five steps see 1,000 images, so they cross into the second epoch.
    """

    def __init__(self, folder, bad: bool = False):
        generator, self.folder = np.random.default_rng(0), folder
        self.data = generator.standard_normal((900, 2, 2, 4, 4, 4)).astype(np.float16)
        self.data[:, :, 1] = abs(self.data[:, :, 1]) / 4
        self.labels = np.arange(900) % 3
        if bad:
            self.data[7, :, 0, 1, 2, 3] = np.inf
        vae = {"sha256": "0" * 64, "scale": 0.8, "channels": 4, "factor": 2}
        facts = {"dataset": "noise", "resolution": 8, "classes": 3, "images_sha256": "0" * 64, "vae": vae}
        for shard in range(2):
            own = range(450 * shard, 450 * (shard + 1))
            members = ((f"{i:05d}", {"npy": encode_npy(self.data[i]), "cls": str(i % 3).encode()}) for i in own)
            tars.write_tar(folder / f"{shard}-of-2.tar", members, **facts)
        self.manifest = gather(folder, 2)


@pytest.fixture
def data_of(digits, tmp_path):
    """The data of a run and the arguments of the second loop that describe them."""

    def find(name: str, bad: bool = False) -> tuple:
        if name == "latents":
            latents = Latents(tmp_path / "latents", bad)
            return latents.folder, latents.manifest, latents.data, latents.labels
        return digits, read_manifest(digits), image_loader.decoded(digits)[0].numpy(), None

    return find


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the training command in this process; returns the folder of the run."""

    def run(spec: dict, data, *options: str, kimg: int = 1):
        arguments = [json.dumps(spec), str(data), str(tmp_path / "run"), "--kimg", str(kimg), *options]
        monkeypatch.setattr(sys, "argv", ["diffit.train", *arguments])
        train.main()
        return tmp_path / "run"

    return run


def assert_equal(found: dict, expected: dict, differs_from: dict | None = None) -> None:
    """Assert equal weights; they must differ from ``differs_from`` by far more than the tolerance."""
    assert expected.keys() <= found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value.detach(), rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )
    if differs_from is not None:
        assert max(float((found[name] - differs_from[name].detach()).abs().max()) for name in expected) > 30 * TOLERANCE


def assert_same_training(folder, loop: Loop, logged: slice = slice(None)) -> None:
    """Assert that a run has the second loop's weights, average, optimizer and log, and published the average.

    ``logged`` are the updates since the last start, over which the log averages the loss.
    """
    checkpoint, published = Checkpoints(folder / "state").load(), load_file(folder / "1" / "ema.safetensors")
    assert checkpoint["images"] == STEPS * BATCH
    assert_equal(checkpoint["net"], loop.weights)
    assert_equal(checkpoint["ema"], loop.average)
    assert_equal(published, loop.average, differs_from=loop.weights)
    for name, moments in zip(loop.weights, checkpoint["optimizer"]["state"].values(), strict=True):
        assert int(moments["step"]) == loop.updates
        scale = float(loop.second[name].max()) ** 0.5
        torch.testing.assert_close(moments["exp_avg"], loop.first[name], rtol=0, atol=1e-4 * scale)
        torch.testing.assert_close(moments["exp_avg_sq"], loop.second[name], rtol=0, atol=1e-4 * scale**2)
    entry = metrics_log.read(folder / "state" / "log.jsonl")[-1]
    values = loop.data[0].size if loop.labels is None else 1  # the loss of images is a sum over pixels
    assert entry["loss"] == pytest.approx(np.mean(loop.losses[logged]) / values, rel=1e-6)
    assert entry["gradient_norm"] == pytest.approx(loop.norms[-1], rel=1e-5)
    assert entry["learning_rate"] == pytest.approx(loop.rates[-1], rel=1e-9)


@pytest.mark.parametrize("name, microbatch", [("edm", 50), ("edm", 200), ("vp", 100), ("ve", 200), ("latents", 50)])
def test_five_steps_equal_the_second_loop(name, microbatch, command, data_of, float64):
    folder, manifest, data, labels = data_of(name)
    run = command(RUNS[name], folder, "--microbatch", str(microbatch))
    loop = Loop(RUNS[name], manifest, data, labels, microbatch=microbatch).run(STEPS)
    assert_same_training(run, loop)


@pytest.mark.parametrize("name", ["edm", pytest.param("latents", marks=pytest.mark.slow)])
def test_five_steps_of_two_ranks_equal_the_second_loop(name, data_of, float64, tmp_path, monkeypatch):
    folder, manifest, data, labels = data_of(name)
    arguments = [json.dumps(RUNS[name]), str(folder), str(tmp_path / "run"), "--kimg", "1", "--ranks", "2"]
    command = [sys.executable, "-m", "helpers.second_loop", *arguments, "--microbatch", "50"]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    subprocess.run(command, env=environment, check=True, timeout=600)
    loop = Loop(RUNS[name], manifest, data, labels, ranks=2, microbatch=50).run(STEPS)
    assert_same_training(tmp_path / "run", loop)


def steps_of_image(spec: dict, index: int, count: int) -> list[int]:
    """The steps that see an image in the first two epochs."""
    orders = [list(epoch_order(spec["seed"], epoch, count)) for epoch in range(2)]
    return [(epoch * count + order.index(index)) // BATCH for epoch, order in enumerate(orders)]


def test_a_step_that_is_not_finite_ends_the_run_or_is_skipped_and_recorded(command, data_of, float64, caplog):
    spec = RUNS["latents"]
    folder, manifest, data, labels = data_of("latents", bad=True)
    bad, _ = steps_of_image(spec, 7, len(data))
    assert 0 < bad < STEPS - 1, "neither the first nor the last step"
    options = ("--microbatch", "50", "--checkpoint-minutes", "0")

    with pytest.raises(UserError, match=f"is not finite in step {bad} of .*by the option --skip-step {bad}$"):
        command(spec, folder, *options)
    with pytest.raises(UserError, match=f"--skip-step {bad}$"):
        command(spec, folder, *options, "--skip-step", str(bad + 1))  # another step: no permission
    run = command(spec, folder, *options, "--skip-step", "0", "--skip-step", str(bad))

    loop = Loop(spec, manifest, data, labels, microbatch=50, skip=(bad,)).run(STEPS)
    assert loop.updates == STEPS - 1
    assert_same_training(run, loop, logged=slice(bad, None))
    assert Checkpoints(run / "state").load()["skipped_steps"] == [bad]
    assert files.read_json(run / "1" / "config.json", "")["skipped_steps"] == [bad]
    assert metrics_log.read(run / "state" / "log.jsonl")[-1]["skipped_steps"] == 1
    assert f"step {bad} is skipped" in caplog.text


def test_a_resumed_run_keeps_the_record_of_the_steps_that_it_skipped(command, data_of, float64):
    spec = RUNS["latents"]
    folder, _manifest, data, _labels = data_of("latents", bad=True)
    first, second = steps_of_image(spec, 7, len(data))
    run = command(spec, folder, "--skip-step", str(first))
    command(spec, folder, "--skip-step", str(second), kimg=2)
    assert files.read_json(run / "2" / "config.json", "")["skipped_steps"] == [first, second]
    assert files.read_json(run / "1" / "config.json", "")["skipped_steps"] == [first]
    assert metrics_log.read(run / "state" / "log.jsonl")[-1]["skipped_steps"] == 2


def test_a_run_without_skipped_steps_records_none(command, digits):
    run = command(RUNS["edm"], digits, "--skip-step", "1")  # a permission that no step needs
    assert "skipped_steps" not in files.read_json(run / "1" / "config.json", "")
    assert "skipped_steps" not in metrics_log.read(run / "state" / "log.jsonl")[-1]
