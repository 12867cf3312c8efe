"""What a run tells while it trains: a progress bar, one JSON object a line for programs, TensorBoard for eyes."""

import json
import logging
import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from diffit.cli import progress
from diffit.store import files

log = logging.getLogger("diffit")

LOG_EVERY_STEPS = 50
SAY_EVERY_SECONDS = 60


class Journal:
    """Measurements of a run by images seen. Lines written after the restored checkpoint are dropped on a restart,
    so that the log tells one story however often the run was killed.

    Args:
        folder: the run's state folder; holds ``log.jsonl`` and ``tensorboard/``.
        images: images seen by the checkpoint that the run goes on from.
    """

    def __init__(self, folder: Path, images: int):
        self.path = folder / "log.jsonl"
        kept = [entry for entry in read(self.path) if entry["images"] <= images]
        with files.atomic(self.path) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        self._file = self.path.open("a", buffering=1)
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=images + 1)

    def write(self, images: int, **values: float) -> None:
        """Append one line: ``images`` and the named values."""
        self._file.write(json.dumps({"images": images, **values}) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=images)

    def close(self) -> None:
        """Flush both logs."""
        self._file.close()
        self._writer.close()


class Report:
    """What a training tells: a progress bar on a terminal, a line a minute elsewhere, and the journal.

    Args:
        active: False on all ranks but the first, which stay silent.
        folder: the run's state folder.
        images: images seen so far.
        target: images to see.
    """

    def __init__(self, active: bool, folder: Path, images: int, target: int):
        self.active, self.folder, self.target = active, folder, target
        self.losses: list[float] = []
        self.since, self.since_images, self.said_at = time.monotonic(), images, time.monotonic()
        if self.active:
            self.journal = Journal(folder, images)
            self.bar = progress(total=target, initial=images, desc=folder.parent.name, unit="img", unit_scale=True)

    def step(self, step: int, images: int, loss: float, norm: float, lr: float) -> None:
        """Take in one step: loss a value, gradient norm, learning rate."""
        if not self.active:
            return
        self.losses.append(loss)
        self.bar.update(images - self.bar.n)
        if (step + 1) % LOG_EVERY_STEPS and images < self.target:
            return
        now, mean = time.monotonic(), sum(self.losses) / len(self.losses)
        speed = (images - self.since_images) / (now - self.since)
        self.journal.write(images, loss=mean, gradient_norm=norm, learning_rate=lr, images_per_second=speed)
        self.bar.set_postfix(loss=f"{mean:.4f}")
        if self.bar.disable and now - self.said_at > SAY_EVERY_SECONDS:
            log.info("%s", sentence(images, self.target, mean, speed))
            self.said_at = now
        self.losses, self.since, self.since_images = [], now, images

    def close(self) -> None:
        """Flush the journal and end the bar."""
        if self.active:
            self.bar.close()
            self.journal.close()


def sentence(images: int, target: int, loss: float, speed: float) -> str:
    """Where a training stands: images seen and to see, loss, images a second."""
    left = tqdm.format_interval((target - images) / speed)
    return f"{images} of {target} images, loss {loss:.4f}, {speed:.0f} images/s, {left} left"


def read(path: Path) -> list[dict]:
    """The lines of a log in order; a last line cut off by a kill is left out. An absent log is empty."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def last(path: Path) -> dict | None:
    """The last complete line of a log that may be growing; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")[:-1]
        return json.loads(lines[-1]) if lines else None
    except (FileNotFoundError, json.JSONDecodeError):
        return None
