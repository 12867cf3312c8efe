"""The training command as a process, and helpers to watch it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EVERY_STEP = ("--checkpoint-minutes", "0")


def wait_for_images(training, process, images: int) -> None:
    """Wait for a checkpoint after at least ``images`` images."""
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if any(int(path.stem.split("-")[1]) >= images for path in training.checkpoints()):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint at {images} images: {process.communicate()[1]}")


def orphans(process) -> list[str]:
    """Return the processes that remain of a process's session."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == process.pid:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                alive += [folder.name] if fields[0] != "Z" else []
        except (ProcessLookupError, FileNotFoundError):
            pass
    return alive


class Training:
    """The training command on the digits, as a process."""

    def __init__(self, spec: dict, data: Path, folder: Path):
        self.spec, self.data, self.folder = spec, data, folder

    def command(self, kimg: int, *options: str) -> list[str]:
        spec = json.dumps(self.spec)
        verb = [sys.executable, "-m", "diffit.train", spec, str(self.data), str(self.folder)]
        return [*verb, "--kimg", str(kimg), *options]

    def start(self, kimg: int, *options: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(kimg, *options),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, kimg: int, *options: str) -> "Ended":
        process = self.start(kimg, *options)
        _, message = process.communicate(timeout=900)
        return Ended(process.returncode, message)

    def weights(self, kimg: int) -> bytes:
        return (self.folder / str(kimg) / "ema.safetensors").read_bytes()

    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "state").glob("checkpoint-*.pt"))


class Ended:
    """The exit status and the messages of a command that has ended."""

    def __init__(self, status: int, message: str):
        self.status, self.message = status, message


def assert_same_course(log, expected) -> None:
    """Assert equal losses at equal images, up to the order of summation."""
    assert [entry["images"] for entry in log] == [entry["images"] for entry in expected]
    for entry, other in zip(log, expected, strict=True):
        assert entry["loss"] == pytest.approx(other["loss"], rel=5e-3)
