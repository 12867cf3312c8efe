"""A run's state on disk: what it trains, its checkpoints, its lock.

results/runs/{run}/state/run.json                   what the run is; changing it is refused
results/runs/{run}/state/checkpoint-000000115008.pt two newest, each with its sha256 beside it
results/runs/{run}/state/milestones/115/            what was published, kept apart from the workflow's outputs,
                                                    which Snakemake deletes before it runs a rule again
results/runs/{run}/state/lock                       who trains it now
"""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from diffit import files
from diffit.cli import UserError
from diffit.config import refuse_changes

log = logging.getLogger("diffit")

KEEP = 2
HEARTBEAT_SECONDS = 30
STALE_SECONDS = 300


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


@contextmanager
def lock(path: Path, unless: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Hold a run for this process; wait, and say so, while another process trains it.

    Yields whether the run is held: False where another process holds it and what was wanted is there already, as
    ``unless`` says.

    A lock whose process is gone, or on another host whose heartbeat has stopped, is taken over. The file is created
    with O_EXCL and kept alive by :func:`heartbeat`, since flock cannot be relied on across NFS and Lustre.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    waiting_for = None
    while not (held := _create(path, owner)) and not unless():
        holder = _holder(path)
        if not _alive(path, holder):
            log.warning("warning: taking over %s from process %s, which is gone", path, holder.get("pid"))
            path.unlink(missing_ok=True)
        elif holder != waiting_for:
            waiting_for = holder
            log.info(
                "waiting for process %s on %s, which trains %s (if it is certainly gone, delete %s)",
                holder.get("pid"), holder.get("host"), path.parent.parent, path,
            )  # fmt: skip
        else:
            time.sleep(1)
    try:
        yield held
    finally:
        if held and _holder(path) == owner:
            path.unlink(missing_ok=True)


def heartbeat(path: Path) -> None:
    """Show that the lock's holder lives; call at least every ``STALE_SECONDS``."""
    now = time.time()
    if path.exists() and now - path.stat().st_mtime > HEARTBEAT_SECONDS:
        os.utime(path)


def _create(path: Path, owner: dict) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        json.dump(owner, file)
    return True


def _holder(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _alive(path: Path, holder: dict) -> bool:
    if holder.get("host") == socket.gethostname():
        return _started(holder["pid"]) == holder["started"]
    return path.exists() and time.time() - path.stat().st_mtime < STALE_SECONDS


def _started(pid: int) -> str | None:
    """When a process of this host began, in clock ticks; None where there is none. Tells a reused pid apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None
