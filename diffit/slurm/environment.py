"""The variables that SLURM sets for the processes of a job; no other module reads them."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One process among those that ``srun`` started for a job."""

    index: int
    world: int
    local_index: int  # among the processes of its node
    first_host: str  # address of the node on which process 0 runs


def job_id() -> str | None:
    """The number of the job that this process belongs to, None outside SLURM."""
    return os.environ.get("SLURM_JOB_ID")


def accounting_id() -> str | None:
    """The job as sacct takes it: ``123``, or ``123_4`` for a task of an array; None outside SLURM."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return job_id()


def start_number() -> int:
    """How often the job was requeued before this start: SLURM starts it again under the same number."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def place() -> Place:
    """This process's place in its job."""
    # srun runs on the first node of the job, where process 0 is. SLURM knows its address even where DNS does not.
    index, world, local_index = (int(os.environ[f"SLURM_{name}"]) for name in ("PROCID", "NTASKS", "LOCALID"))
    return Place(index, world, local_index, os.environ["SLURM_LAUNCH_NODE_IPADDR"])


def site_variables() -> dict[str, str]:
    """The variables that say where the cluster is; they do not describe a job."""
    return {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
