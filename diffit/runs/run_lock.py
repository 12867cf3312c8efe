"""The lock of a run: only one process at a time, on any host of the cluster, changes a run's state.

Who holds ``state/lock``:

- launcher local: the training command, while it trains;
- launcher slurm: the command, only while it looks for the run's job and submits one; the first rank of the job, in each
  start of the job, while it trains. A command that follows a job does not hold the lock.

The lock is a file created with O_EXCL, because flock is not reliable on NFS and Lustre. A thread of the holder touches
the file every ``HEARTBEAT_SECONDS``, independently of training steps. A lock without a live holder is taken over. If
its holder was alive after all, :func:`check` stops that process before its next write.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diffit.cli import UserError
from diffit.slurm import environment

log = logging.getLogger("diffit")

HEARTBEAT_SECONDS = 30
STALE_SECONDS = 300


@contextmanager
def lock(path: Path, give_up: Callable[[], bool] = lambda: False, ended_job: str | None = None) -> Iterator[bool]:
    """Hold the lock at ``path``; wait, with a message, while another process holds it.

    A lock is taken over if its process no longer runs on this host, if it belongs to an earlier start of this SLURM job
    or to ``ended_job``, or if its heartbeat has stopped.

    Args:
        path: the lock file.
        give_up: asked while another process holds the lock; True ends the wait.
        ended_job: number of a SLURM job that is known to have ended.

    Yields whether the lock is held: False after ``give_up``.
    """
    owner = _this_process()
    if not _acquire(path, owner, give_up, ended_job):
        yield False
        return
    released = threading.Event()
    threading.Thread(target=_keep_alive, args=(path, owner, released), daemon=True).start()
    try:
        yield True
    finally:
        released.set()
        if _holder(path) == owner:
            path.unlink(missing_ok=True)


def check(path: Path) -> None:
    """Raise :class:`UserError` unless this process, or the launcher that started it as a rank, holds the lock."""
    holder = _holder(path)
    if holder.get("host") != socket.gethostname() or holder.get("pid") not in (os.getpid(), os.getppid()):
        reason = f"process {holder['pid']} on {holder['host']} holds it" if holder else "it was deleted"
        raise UserError(
            f"this process has lost the lock {path} ({reason}), so it stops writing; repeat the command to continue "
            "from the last checkpoint"
        )


def _acquire(path: Path, owner: dict, give_up: Callable[[], bool], ended_job: str | None) -> bool:
    """Create the lock file, after waiting for a live holder; False after ``give_up``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    announced = None
    while not _create(path, owner):
        if give_up():
            return False
        holder = _holder(path)
        if not _is_alive(path, holder, owner, ended_job):
            if _remove(path, holder):
                log.warning("warning: took over %s from process %s, which has ended", path, holder.get("pid"))
        elif holder != announced:
            announced = holder
            log.info(
                "waiting for process %s on %s, which trains %s (if it certainly no longer runs, delete %s)",
                holder.get("pid"), holder.get("host"), path.parent.parent, path,
            )  # fmt: skip
        else:
            time.sleep(1)
    return True


def _this_process() -> dict:
    pid, job, start = os.getpid(), environment.job_id(), environment.start_number()
    return {"host": socket.gethostname(), "pid": pid, "started": _start_time(pid), "job": job, "start": start}


def _create(path: Path, owner: dict) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        json.dump(owner, file)
    return True


def _remove(path: Path, holder: dict) -> bool:
    """Remove the lock of a ``holder`` that has ended; False if another process has taken it over by now.

    Several processes may find that the same holder has ended. The first one renames the lock file. A later one then
    renames the lock that the first one created, sees this by its content, and puts it back.
    """
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    is_same_holder = _holder(aside) == holder
    if not is_same_holder:
        with contextlib.suppress(FileExistsError):  # a third process has created its lock: check() stops the second
            os.link(aside, path)
    aside.unlink()
    return is_same_holder


def _keep_alive(path: Path, owner: dict, released: threading.Event) -> None:
    while not released.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(
            OSError
        ):  # the file system may be unavailable for a while; check() notices a lost lock
            if _holder(path) == owner:
                os.utime(path)


def _holder(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _is_alive(path: Path, holder: dict, owner: dict, ended_job: str | None) -> bool:
    job = holder.get("job")
    if job and (job == ended_job or (job == owner["job"] and holder["start"] < owner["start"])):
        return False
    if holder.get("host") == socket.gethostname():
        return _start_time(holder["pid"]) == holder["started"]
    try:
        return _now(path.parent) - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _now(folder: Path) -> float:
    """Return the time by the file system's clock. The clocks of the hosts may differ from it."""
    touched = folder / f".now.{uuid.uuid4().hex}.tmp"
    touched.touch()
    try:
        return touched.stat().st_mtime
    finally:
        touched.unlink()


def _start_time(pid: int) -> str | None:
    """Return when a process of this host began, in clock ticks; None if it does not run. Detects reused numbers."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None
