"""Checkpoints of a run: written atomically, hashed, the newest kept."""

import logging
from pathlib import Path

import torch

from diffit.cli import UserError
from diffit.store import files

log = logging.getLogger("diffit")

KEEP = 2


class Checkpoints:
    """The checkpoints of one run: written atomically, hashed, the newest ``KEEP`` kept."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, images: int, content: dict) -> None:
        """Write the state after ``images`` images, then drop the oldest checkpoints beyond ``KEEP``."""
        path = self.folder / f"checkpoint-{images:012d}.pt"
        with files.atomic(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(content, file)
            files.seal(path, written=temporary, images=images)
        for old in self._paths()[:-KEEP]:
            old.unlink()
            files.sidecar(old).unlink(missing_ok=True)

    def load(self) -> dict | None:
        """The newest checkpoint, on the CPU, or None where there is none yet. Call :meth:`tidy` before."""
        paths = self._paths()
        return torch.load(paths[-1], map_location="cpu", weights_only=True) if paths else None

    def images(self) -> int:
        """The images that the newest checkpoint has seen, 0 where there is none. Call :meth:`tidy` before."""
        paths = self._paths()
        return files.read_json(files.sidecar(paths[-1]), remedy="start the command again")["images"] if paths else 0

    def tidy(self) -> None:
        """Set damaged checkpoints aside with a warning, so that the one before is the newest; drop what kills left.

        Only for the holder of the run's lock. When all are damaged, a :class:`UserError` says so, because beginning
        again would throw weeks away in silence.
        """
        for unfinished in self.folder.glob(".*.tmp"):
            unfinished.unlink(missing_ok=True)
        damaged = [path for path in self._paths() if not self._is_intact(path)]
        if damaged and len(damaged) == len(self._paths()):
            raise UserError(
                f"every checkpoint in {self.folder} is damaged; "
                f"restore one from a backup, or start over by deleting {self.folder.parent}"
            )
        for path in damaged:
            path.rename(path.with_name(f"damaged-{path.name}"))

    @staticmethod
    def _is_intact(path: Path) -> bool:
        try:
            files.verify(path, remedy="")
        except UserError as error:
            log.warning("warning: %s; the checkpoint before it is used", str(error).rstrip("; "))
            return False
        return True

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))
