"""The ranks of a training: one process, several processes of this machine, or those of a SLURM job.

A launcher (see diffit/launch/) gives each rank its :class:`Place`; :func:`join` connects the ranks.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from diffit.cli import UserError

LAUNCHER = "DIFFIT_LAUNCHER"  # environment variable of each rank: the name of the launcher that started it
COLLECTIVE_TIMEOUT = timedelta(hours=2)  # the first rank may hash or copy hundreds of gigabytes while the others wait
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


@dataclass(frozen=True)
class Place:
    """The place of one process in a training. The defaults describe a training in a single process.

    Attributes:
        index: number of the process, from 0.
        world: number of processes.
        local_index: number among the processes of its machine.
        host: address of process 0, where all processes meet; unused by a single process.
        port: port at that address.
        may_hide_gpus: whether a scheduler may show each process only its own GPU.
    """

    index: int = 0
    world: int = 1
    local_index: int = 0
    host: str = ""
    port: int = 0
    may_hide_gpus: bool = False


@dataclass(frozen=True)
class Rank:
    """One process of a training: its number, the number of processes, and its device."""

    index: int
    world: int
    device: torch.device
    local_index: int = 0  # among the ranks of its machine

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def is_first_here(self) -> bool:
        """Whether it is the first rank of its machine."""
        return self.local_index == 0

    def sum(self, *values: float) -> list[float]:
        """Sum each value over all ranks, in float64. Every rank gets the same result."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()


class StopSignal:
    """Records the first SIGTERM, SIGINT or SIGUSR2, so that the training loop can finish its step before it ends."""

    def __init__(self):
        self.number: int | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._record)

    def _record(self, number, _frame) -> None:
        self.number = self.number or number


@contextmanager
def join(place: Place = Place()) -> Iterator[Rank]:
    """Connect to the other ranks, with NCCL on GPUs and gloo on CPUs. Variables such as RANK are not read.

    Raises :class:`UserError` if there is no GPU for this rank or if another rank is lost.
    """
    torch.backends.cudnn.allow_tf32 = False  # float32 stays float32; lower precision must be asked for by name
    device = _device(place)
    if place.world > 1:
        os.environ |= {"MASTER_ADDR": place.host, "MASTER_PORT": str(place.port)}
        backend, device_id = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        dist.init_process_group(
            backend, rank=place.index, world_size=place.world, device_id=device_id, timeout=COLLECTIVE_TIMEOUT
        )
    try:
        yield Rank(place.index, place.world, device, place.local_index)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"rank {place.index} lost the connection to another rank ({reason}); see the messages of the other ranks "
            "for the cause"
        ) from None
    finally:
        if place.world > 1:
            dist.destroy_process_group()


def _device(place: Place) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    number = 0 if place.may_hide_gpus and visible == 1 else place.local_index
    if number >= visible:
        raise UserError(f"rank {place.index} has no GPU of its own, because {visible} are visible; start fewer ranks")
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device
