"""Where training runs: in this process, or in several of this machine. One definition of ranks and devices."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from diffit.cli import UserError

GRACE_SECONDS = 60
PATIENCE = timedelta(hours=2)  # of ranks that wait while the first one hashes or stages hundreds of gigabytes
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
LAUNCHER = "DIFFIT_LAUNCHER"  # in the environment of a rank: the process that started it


@dataclass(frozen=True)
class Rank:
    """One process of a training: its number, how many there are, and its device."""

    index: int
    world: int
    device: torch.device
    local_index: int = 0  # among the ranks of its machine

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def is_first_here(self) -> bool:
        """Whether it is the first of its machine."""
        return self.local_index == 0

    def sum(self, *values: float) -> list[float]:
        """The sums of each value over all ranks, in float64, the same on every rank."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


class StopSignal:
    """Remembers the first SIGTERM, SIGINT or SIGUSR2 instead of dying of it, so that the loop can end its step."""

    def __init__(self):
        self.number: int | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number, _frame) -> None:
        self.number = self.number or number


def is_rank() -> bool:
    """Whether this process was started as one of several ranks."""
    return LAUNCHER in os.environ


@contextmanager
def join() -> Iterator[Rank]:
    """Become the rank that the launcher names in the environment, or the only one. NCCL on GPUs, gloo on CPUs.

    RANK and WORLD_SIZE that something else has set mean nothing here.
    """
    index, world, local_index = 0, 1, 0
    if is_rank():
        _die_with_launcher()
        index, world, local_index = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; bfloat16 is asked for by name
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_index >= torch.cuda.device_count():
            raise UserError(
                f"rank {index} has no GPU of its own: {torch.cuda.device_count()} here; ask for fewer ranks"
            )
        device = torch.device("cuda", local_index)
        torch.cuda.set_device(device)
    if world > 1:
        on_gpu = device.type == "cuda"
        backend, bound = ("nccl", device) if on_gpu else ("gloo", None)
        dist.init_process_group(backend, rank=index, world_size=world, device_id=bound, timeout=PATIENCE)
    try:
        yield Rank(index, world, device, local_index)
    finally:
        if world > 1:
            dist.destroy_process_group()


def local(ranks: int, command: list[str]) -> int:
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


def _die_with_launcher() -> None:
    """Have the kernel kill this rank when its launcher is killed: an orphan would train on beside the next attempt."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(os.environ[LAUNCHER]):  # it was killed before the kernel knew
        os._exit(1)


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
