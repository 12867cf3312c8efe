"""The metrics of a training: a log with one JSON object per line, TensorBoard, and progress on the terminal.

:class:`MetricsWriter` is the only place that writes metrics. To add a logger such as Weights & Biases, open it in
``__init__``, pass it the values in ``write``, and close it in ``close``.
"""

import json
import logging
import math
import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from diffit.cli import progress
from diffit.store import files

log = logging.getLogger("diffit")

LOG_FILE = "log.jsonl"
LOG_EVERY_STEPS = 50
PRINT_EVERY_SECONDS = 60


class MetricsWriter:
    """Writes the metrics of a run, by images seen.

    A restart drops the entries after the restored checkpoint, so the log is the same as that of an uninterrupted run.

    Args:
        folder: the run's state folder; holds ``log.jsonl`` and ``tensorboard/``.
        images: images seen by the restored checkpoint.
    """

    def __init__(self, folder: Path, images: int):
        path = folder / LOG_FILE
        kept = [entry for entry in read(path) if entry["images"] <= images]
        with files.atomic(path) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        self._file = path.open("a", buffering=1)
        self._tensorboard = SummaryWriter(folder / "tensorboard", purge_step=images + 1)

    def write(self, images: int, **values: float) -> None:
        """Write the named values after ``images`` images."""
        self._file.write(json.dumps({"images": images, **values}) + "\n")
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, global_step=images)

    def close(self) -> None:
        """Flush and close all logs."""
        self._file.close()
        self._tensorboard.close()


class ProgressReport:
    """Averages the metrics of steps, writes them, and shows progress: a bar on a terminal, else one line per minute.

    Args:
        active: whether to report; False on all ranks except the first.
        folder: the run's state folder.
        images: images seen so far.
        end_images: images at the end of the training.
    """

    def __init__(self, active: bool, folder: Path, images: int, end_images: int):
        self.active, self.end_images = active, end_images
        self.losses: list[float] = []
        self.norm = math.nan
        self.since, self.since_images, self.printed_at = time.monotonic(), images, time.monotonic()
        if self.active:
            self.writer = MetricsWriter(folder, images)
            self.bar = progress(
                lines=False,
                total=end_images,
                initial=images,
                desc=folder.parent.name,
                unit="img",
                unit_scale=True,
            )

    def step(self, step: int, images: int, loss: float, norm: float, lr: float, skipped: int) -> None:
        """Record one step: loss per value, gradient norm, learning rate, number of skipped steps so far.

        A step whose loss or norm is not finite was skipped and enters no mean.
        """
        if not self.active:
            return
        if math.isfinite(loss) and math.isfinite(norm):
            self.losses.append(loss)
            self.norm = norm
        self.bar.update(images - self.bar.n)
        if not self.losses or ((step + 1) % LOG_EVERY_STEPS and images < self.end_images):
            return
        now, mean = time.monotonic(), sum(self.losses) / len(self.losses)
        speed = (images - self.since_images) / (now - self.since)
        counts = {"skipped_steps": skipped} if skipped else {}
        values = {"gradient_norm": self.norm, "learning_rate": lr, "images_per_second": speed}
        self.writer.write(images, loss=mean, **values, **counts)
        self.bar.set_postfix(loss=f"{mean:.4f}")
        if self.bar.disable and now - self.printed_at > PRINT_EVERY_SECONDS:
            log.info("%s", progress_line(images, self.end_images, mean, speed))
            self.printed_at = now
        self.losses, self.since, self.since_images = [], now, images

    def close(self) -> None:
        """Close the bar and the logs."""
        if self.active:
            self.bar.close()
            self.writer.close()


def progress_line(images: int, end_images: int, loss: float, speed: float) -> str:
    """Describe the progress of a training. ``speed`` is in images per second."""
    left = tqdm.format_interval((end_images - images) / speed)
    return f"{images} of {end_images} images, loss {loss:.4f}, {speed:.0f} images/s, {left} left"


def read(path: Path) -> list[dict]:
    """Read the entries of a log, without an incomplete last line. A missing log has no entries."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def read_last(path: Path) -> dict | None:
    """Read the last complete entry of a log that may be growing; None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")[:-1]
        return json.loads(lines[-1]) if lines else None
    except (FileNotFoundError, json.JSONDecodeError):
        return None
