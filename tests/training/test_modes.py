"""Dropout, precision and TF32 while a network is trained and while it is sampled."""

import json
import signal
import sys

import pytest
import torch
from helpers.configurations import TINY_RUN
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from diffit import train
from diffit.sample import sample
from diffit.training.ranks import STOP_SIGNALS

SAMPLER = {
    "kind": "heun", "steps": 2, "images": 8, "first_seed": 0, "block": 8, "precision": "float32",
    "sigma_min": 0.002, "sigma_max": 80, "rho": 7, "s_churn": 0, "s_min": 0, "s_max": 1e9, "s_noise": 1,
}  # fmt: skip


@pytest.fixture
def calls():
    """What was seen at each call of a layer: its kind, the dtype of its output, training mode, TF32 of products and
    of convolutions.
    """
    seen = set()

    def note(layer, _inputs, output):
        if isinstance(layer, nn.Conv2d | nn.Dropout):
            tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            seen.add((type(layer).__name__, output.dtype, layer.training, *tf32))

    handle = register_module_forward_hook(note)
    yield seen
    handle.remove()


@pytest.fixture
def trained(digits, tmp_path, monkeypatch):
    """Train the tiny run for a few large steps in this process, in a precision; returns the milestone's folder."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    def run(precision: str = "float32"):
        spec = {**TINY_RUN, "training": {**TINY_RUN["training"], "batch": 500, "precision": precision}}
        arguments = [json.dumps(spec), str(digits), str(tmp_path / "run"), "--kimg", "1", "--microbatch", "50"]
        monkeypatch.setattr(sys, "argv", ["diffit.train", *arguments])
        train.main()
        return tmp_path / "run" / "1"

    yield run
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = flags
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_uses_dropout_and_the_precision_of_the_run_and_no_tf32(trained, calls, precision):
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    trained(precision)
    dtype = getattr(torch, precision)
    assert ("Dropout", dtype, True, False, False) in calls and ("Conv2d", dtype, True, False, False) in calls
    assert {(kind, *rest) for kind, _dtype, *rest in calls} == {
        ("Dropout", True, False, False), ("Conv2d", True, False, False),
    }  # fmt: skip
    assert {found for kind, found, *_ in calls if kind == "Conv2d"} == {dtype}


@pytest.mark.parametrize("precision, dtype, tf32", [
    ("float32", torch.float32, False), ("tf32", torch.float32, True), ("bfloat16", torch.bfloat16, False),
])  # fmt: skip
def test_sampling_uses_no_dropout_and_the_precision_of_the_sampler(trained, calls, tmp_path, precision, dtype, tf32):
    milestone = trained()
    calls.clear()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not tf32
    sample({**SAMPLER, "precision": precision}, milestone, tmp_path / "samples" / "0-of-1.tar")
    assert {found for kind, found, *_ in calls if kind == "Conv2d"} == {dtype}
    assert {tuple(rest) for _kind, _dtype, *rest in calls} == {(False, tf32, tf32)}
    # The settings of before are back.
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is not tf32
