"""The log of a run: one JSON object a line for programs, TensorBoard beside it for eyes."""

import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from diffit import files


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


def read(path: Path) -> list[dict]:
    """The lines of a log in order; a last line cut off by a kill is left out. An absent log is empty."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
