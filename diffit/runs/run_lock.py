"""A run's lock: one process at a time changes a run's state, on whatever host of the cluster it runs.

Who holds ``state/lock``:

- launchers inline and local: the command, for as long as it trains;
- launcher slurm: the command only while it looks for the run's job and submits one; the job's first rank for as long
  as the job trains, each time that it is started. Whoever follows a job holds nothing.

The lock is a file created with O_EXCL, since flock cannot be relied on across NFS and Lustre. A thread of the holder
touches it for as long as it is held, however long a step, a checkpoint or hashing takes. A lock whose holder is gone is
taken over; a holder that had only seemed gone finds that out by :func:`check`, before it writes anything.
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
def lock(path: Path, unless: Callable[[], bool] = lambda: False, ended: str | None = None) -> Iterator[bool]:
    """Hold the lock at ``path`` for this process; wait, and say so, while another process holds it.

    Yields whether it is held: False where another process holds it and waiting has become pointless, as ``unless``
    says. A lock is taken over when its process is gone from this host, when it is of an earlier start of this SLURM
    job or of the job ``ended``, or when its heartbeat has stopped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = _this_process()
    waiting_for = None
    while not (held := _create(path, owner)) and not unless():
        holder = _holder(path)
        if not _alive(path, holder, owner, ended):
            if _take_away(path, holder):
                log.warning("warning: taking over %s from process %s, which is gone", path, holder.get("pid"))
        elif holder != waiting_for:
            waiting_for = holder
            log.info(
                "waiting for process %s on %s, which trains %s (if it is certainly gone, delete %s)",
                holder.get("pid"), holder.get("host"), path.parent.parent, path,
            )  # fmt: skip
        else:
            time.sleep(1)
    if not held:
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
        taken = f"process {holder['pid']} on {holder['host']} holds it" if holder else "it is gone"
        raise UserError(
            f"this process has lost the lock {path} ({taken}), so it writes nothing more; the same command goes on "
            "from the last checkpoint"
        )


def _this_process() -> dict:
    pid, job, start = os.getpid(), environment.job_id(), environment.start_number()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "job": job, "start": start}


def _create(path: Path, owner: dict) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        json.dump(owner, file)
    return True


def _take_away(path: Path, holder: dict) -> bool:
    """Remove the lock of a ``holder`` that is gone; False where it was another's by then, whose lock stays.

    Of several that find the same holder gone, one renames its file; what another renames is already the lock of the
    first one, which it sees by the content and puts back.
    """
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    was_the_holders = _holder(aside) == holder
    if not was_the_holders:
        with contextlib.suppress(FileExistsError):  # a third one was quicker: check() stops the one in between
            os.link(aside, path)
    aside.unlink()
    return was_the_holders


def _keep_alive(path: Path, owner: dict, released: threading.Event) -> None:
    while not released.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):  # check() tells the holder; the file system may only be away for a while
            if _holder(path) == owner:
                os.utime(path)


def _holder(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _alive(path: Path, holder: dict, owner: dict, ended: str | None) -> bool:
    job = holder.get("job")
    if job and (job == ended or (job == owner["job"] and holder["start"] < owner["start"])):
        return False
    if holder.get("host") == socket.gethostname():
        return _started(holder["pid"]) == holder["started"]
    try:
        return _now(path.parent) - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _now(folder: Path) -> float:
    """The time by the clock of the file system, which the clocks of the hosts may not follow."""
    probe = folder / f".now.{uuid.uuid4().hex}.tmp"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _started(pid: int) -> str | None:
    """When a process of this host began, in clock ticks; None where there is none. Tells a reused pid apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None
