"""Several ranks of a training on this machine, each a process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from diffit.training.ranks import LAUNCHER, STOP_SIGNALS

GRACE_SECONDS = 60


def run_ranks(ranks: int, command: list[str]) -> int:
    """Run ``command`` once a rank on this machine and return the first exit status that is not 0, else 0.

    Signals that ask this process to end are passed on. When one rank dies, the others get SIGTERM, and SIGKILL after
    ``GRACE_SECONDS``.
    """
    # Snakemake hands a job its threads in OMP_NUM_THREADS; the ranks share them.
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    environment = {
        **os.environ,
        LAUNCHER: str(os.getpid()),
        "OMP_NUM_THREADS": str(max(1, threads // ranks)),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    processes: list[subprocess.Popen] = []

    def forward(number, _frame):
        for process in processes:
            process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        for rank in range(ranks):
            own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=own))
        return _wait(processes)
    finally:
        for process in processes:
            process.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


def this_command() -> list[str]:
    """The command line that started this process, for starting it again as a rank."""
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
