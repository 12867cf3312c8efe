"""Several ranks of a training as processes of this machine."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time

from diffit.training.ranks import LAUNCHER, STOP_SIGNALS, Place

NAME = "local"
PARENT = "DIFFIT_LAUNCHER_PID"  # environment variable of each rank: the process that started it
GRACE_SECONDS = 60


def start(ranks: int, command: list[str]) -> int:
    """Run ``command`` in each of ``ranks`` processes. Return 0, or the first exit status that is not 0.

    Stop signals are passed on to the ranks. If one rank fails, the others get SIGTERM, and SIGKILL after
    ``GRACE_SECONDS``.
    """
    # Snakemake sets OMP_NUM_THREADS to the threads of its job; the ranks share them.
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    environment = {
        **os.environ,
        LAUNCHER: NAME,
        PARENT: str(os.getpid()),
        "OMP_NUM_THREADS": str(max(1, threads // ranks)),
        "WORLD_SIZE": str(ranks),
        "MASTER_PORT": str(_free_port()),
    }
    processes: list[subprocess.Popen] = []

    def forward(number, _frame):
        for process in processes:
            process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        for rank in range(ranks):
            processes.append(subprocess.Popen(command, env={**environment, "RANK": str(rank)}))
        return _wait(processes)
    finally:
        for process in processes:
            process.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


def place() -> Place:
    """Return the place of this rank, and have the kernel kill this process when its launcher ends."""
    _die_with_launcher()
    index, world, port = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    return Place(index, world, local_index=index, host="127.0.0.1", port=port)


def this_command() -> list[str]:
    """Return the command line that starts this process again."""
    return [sys.executable, "-m", sys.modules["__main__"].__spec__.name, *sys.argv[1:]]


def _wait(processes: list[subprocess.Popen]) -> int:
    while True:
        states = [process.poll() for process in processes]
        if failed := [state for state in states if state not in (None, 0)]:
            break
        if all(state == 0 for state in states):
            return 0
        time.sleep(0.1)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    return failed[0]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _die_with_launcher() -> None:
    """Have the kernel kill this rank when its launcher is killed. An orphan would train beside the next attempt."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):  # the launcher was killed before the call
        os._exit(1)
