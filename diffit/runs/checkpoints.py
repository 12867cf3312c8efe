"""The checkpoints of a run: written atomically, with a sha256; the newest are kept."""

import logging
from pathlib import Path

import torch

from diffit.cli import UserError
from diffit.store import files

log = logging.getLogger("diffit")

KEEP = 2


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: the run's state folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, images: int, content: dict) -> None:
        """Write the checkpoint after ``images`` images, then delete all but the newest ``KEEP``."""
        path = self.folder / f"checkpoint-{images:012d}.pt"
        with files.atomic(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(content, file)
            files.seal(path, written=temporary, images=images)
        for old in self.paths()[:-KEEP]:
            old.unlink()
            files.sidecar(old).unlink(missing_ok=True)

    def load(self) -> dict | None:
        """Load the newest checkpoint to the CPU; None if there is none. Call :meth:`clean_up` first."""
        paths = self.paths()
        return torch.load(paths[-1], map_location="cpu", weights_only=True) if paths else None

    def images(self) -> int:
        """Return the images that the newest checkpoint has seen, 0 if there is none. Call :meth:`clean_up` first."""
        paths = self.paths()
        return files.read_json(files.sidecar(paths[-1]), remedy="repeat the command")["images"] if paths else 0

    def clean_up(self) -> None:
        """Rename damaged checkpoints, with a warning, and delete unfinished files. For the holder of the lock only.

        Raises :class:`UserError` if all checkpoints are damaged, because a restart from zero could lose weeks.
        """
        for unfinished in self.folder.glob(".*.tmp"):
            unfinished.unlink(missing_ok=True)
        damaged = [path for path in self.paths() if not self._is_intact(path)]
        if damaged and len(damaged) == len(self.paths()):
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
            log.warning("warning: %s; the previous checkpoint is used", str(error).rstrip("; "))
            return False
        return True

    def paths(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(self.folder.glob("checkpoint-*.pt"))
