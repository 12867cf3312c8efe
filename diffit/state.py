"""A run's state on disk: what it trains, its checkpoints, its legs.

results/runs/{run}/state/run.json                   what the run is; changing it is refused
results/runs/{run}/state/checkpoint-000000115008.pt two newest, each with its sha256 beside it
results/runs/{run}/state/milestones/115/            what was published, kept apart from the workflow's outputs,
                                                    which Snakemake deletes before it runs a rule again
results/runs/{run}/state/legs.json                  each start of its training: code, commit, time, SLURM job
results/runs/{run}/state/submission.json            the SLURM job that was submitted last, see diffit/launch.py
results/runs/{run}/state/code/{sha256}/diffit/      the package as such jobs run it
results/runs/{run}/state/lock                       who changes it now, see diffit/lock.py
"""

import logging
import time
from pathlib import Path

import torch

from diffit import files
from diffit.cli import UserError
from diffit.config import refuse_changes
from diffit.fingerprint import commit, fingerprint

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


def claim(folder: Path, identity: dict) -> None:
    """Record what a run is, or check that it still is that.

    Raises :class:`UserError` with the differing keys when the run began with another configuration or other data.
    """
    path = folder / "run.json"
    if not path.exists():
        files.write_json(path, identity)
        return
    before = files.read_json(path, remedy=f"restore it, or start over by deleting {folder.parent}")
    refuse_changes(folder.parent, before, identity)


def code_of(identity: dict) -> str:
    """The fingerprint of the code that trains a run."""
    net, process = identity["net"]["kind"], identity["process"]["kind"]
    return fingerprint(["diffit.train", f"diffit.nets.{net}", f"diffit.process.{process}"])


def begin_leg(folder: Path, identity: dict) -> None:
    """Record with which code, and in which SLURM job, this leg of the run goes on; say so where the code is another
    than that of the leg before.
    """
    code = code_of(identity)
    path = folder / "legs.json"
    legs = files.read_json(path, remedy="restore it")["legs"] if path.exists() else []
    if legs and legs[-1]["code"] != code:
        log.warning("warning: the code of %s changed since its last leg (%s → %s)", folder, legs[-1]["code"], code)
    at, job = time.strftime("%FT%TZ", time.gmtime()), files.job()
    files.write_json(path, {"legs": [*legs, {"code": code, "commit": commit(), "at": at, "job": job}]})
