"""Training on a GPU: data order and random numbers are equal to the bit, weights up to the order of summation."""

import os
import shutil
import signal
import subprocess

import pytest
from helpers.places import GPUS
from helpers.training import EVERY_STEP, assert_same_course, wait_for_images

from diffit.runs import metrics_log

pytestmark = pytest.mark.skipif(
    not shutil.which("nvidia-smi") or b"GPU" not in subprocess.run(["nvidia-smi", "-L"], capture_output=True).stdout,
    reason="there is no GPU",
)


@pytest.fixture(autouse=True)
def visible_gpus(monkeypatch):
    if GPUS is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", GPUS)


def test_a_killed_run_goes_on_along_the_same_course(training):
    undisturbed, killed = training("undisturbed"), training("killed")
    assert undisturbed.run(2).status == 0
    process = killed.start(2, *EVERY_STEP)
    wait_for_images(killed, process, 500)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert killed.run(2).status == 0
    assert_same_course(*(metrics_log.read(run.folder / "state" / "log.jsonl")[-1:] for run in (killed, undisturbed)))


def test_bfloat16_learns(training, tiny_run):
    run = training(training={**tiny_run["training"], "precision": "bfloat16"})
    assert run.run(2, "--workers", "2").status == 0
    log = metrics_log.read(run.folder / "state" / "log.jsonl")
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
