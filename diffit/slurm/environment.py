"""The environment variables that SLURM sets for the processes of a job. No other module reads them."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class SrunProcess:
    """One of the processes that ``srun`` starts for a job."""

    index: int
    world: int  # number of processes
    local_index: int  # among the processes of its node
    first_host: str  # address of the node that runs process 0


def job_id() -> str | None:
    """Return the number of the job that this process belongs to; None outside SLURM."""
    return os.environ.get("SLURM_JOB_ID")


def accounting_id() -> str | None:
    """Return the job in sacct's notation: ``123``, or ``123_4`` for a task of an array; None outside SLURM."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return job_id()


def start_number() -> int:
    """Return how often the job was requeued before this start. A requeued job keeps its number."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def srun_process() -> SrunProcess:
    """Return this process's place in its job."""
    index, world, local_index = (int(os.environ[f"SLURM_{name}"]) for name in ("PROCID", "NTASKS", "LOCALID"))
    # srun runs on the first node of the job, as does process 0. This address needs no DNS.
    return SrunProcess(index, world, local_index, os.environ["SLURM_LAUNCH_NODE_IPADDR"])


def site_variables() -> dict[str, str]:
    """Return the variables that locate the cluster, as opposed to those that describe a job."""
    return {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
