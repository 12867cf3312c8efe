"""The ranks of a training: in this process, in several of this machine, or in those of a SLURM job.

One definition of a rank's number, port and device for all three, see :func:`join`; diffit/launch/ chooses.
"""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from diffit.cli import UserError
from diffit.slurm import environment

PATIENCE = timedelta(hours=2)  # of ranks that wait while the first one hashes or stages hundreds of gigabytes
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
LAUNCHER = "DIFFIT_LAUNCHER"  # in the environment of a rank: the process that started it, or SLURM
SLURM = "slurm"


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


def in_job() -> bool:
    """Whether this process was started as a rank of a SLURM job."""
    return os.environ.get(LAUNCHER) == SLURM


@contextmanager
def join() -> Iterator[Rank]:
    """Become the rank that the launcher names in the environment, or the only one. NCCL on GPUs, gloo on CPUs.

    RANK and WORLD_SIZE that something else has set mean nothing here.
    """
    index, world, local_index = _place()
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; bfloat16 is asked for by name
    device = _device(index, local_index)
    if world > 1:
        on_gpu = device.type == "cuda"
        backend, bound = ("nccl", device) if on_gpu else ("gloo", None)
        dist.init_process_group(backend, rank=index, world_size=world, device_id=bound, timeout=PATIENCE)
    try:
        yield Rank(index, world, device, local_index)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        said = str(error).splitlines()[0]
        raise UserError(f"rank {index} has lost another rank, which says why if it was not killed ({said})") from None
    finally:
        if world > 1:
            dist.destroy_process_group()


def _place() -> tuple[int, int, int]:
    """This process's number, how many there are, and its number on its machine; where they meet, in the environment."""
    if in_job():
        place = environment.place()
        os.environ["MASTER_ADDR"] = place.first_host
        os.environ["MASTER_PORT"] = str(job_port(int(environment.job_id()), environment.start_number()))
        return place.index, place.world, place.local_index
    if is_rank():
        _die_with_launcher()
        index, world, local_index = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return index, world, local_index
    return 0, 1, 0


def job_port(job: int, start: int) -> int:
    """Where the ranks of a job meet, the same on all its hosts: below the ports that systems hand out by themselves.

    Jobs whose numbers are less than 645 apart differ, and so do up to 31 starts of one job and of its neighbours.
    """
    return 10_000 + (31 * job + start) % 20_000


def _device(index: int, local_index: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    number = 0 if in_job() and visible == 1 else local_index  # SLURM may show each rank its own GPU only
    if number >= visible:
        raise UserError(f"rank {index} has no GPU of its own: {visible} here; ask for fewer ranks")
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def _die_with_launcher() -> None:
    """Have the kernel kill this rank when its launcher is killed: an orphan would train on beside the next attempt."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(os.environ[LAUNCHER]):  # it was killed before the kernel knew
        os._exit(1)
