"""Launcher ``slurm``: train in one job of a SLURM cluster, which is requeued until the milestone is reached.

The command of the user submits the job and follows it. It can be killed, left and repeated at any time, because
``state/submission.json`` names the job before it is submitted (see diffit/launch/submission.py). The job runs a copy of
the package that was made at the submission, also after a requeue; only a new submission uses new code.
"""

import logging
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields

from diffit.cli import UserError
from diffit.launch import slurm_job, submission
from diffit.launch.follow import follow
from diffit.launch.slurm_job import JobResources
from diffit.runs import run_record
from diffit.runs.run_lock import lock
from diffit.slurm import environment
from diffit.training import ranks
from diffit.training.task import Task, Train

log = logging.getLogger("diffit")

NAME = slurm_job.NAME
DETACHED = 75  # exit status EX_TEMPFAIL: the milestone is not reached yet
LOCK_TIMEOUT_SECONDS = 600


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of this launcher."""
    add = parser.add_argument
    add("--slurm-partition", default="", help="slurm: partition (default: the cluster's)")
    add("--slurm-account", default="", help="slurm: account (default: the cluster's)")
    add("--slurm-extra", default="", metavar="'--KEY=VALUE …'", help="slurm: further options of sbatch")


def launch(task: Task, train: Train, arguments: Namespace) -> None:
    """Submit the run's job or attach to it, follow it to the milestone, and submit another one if it was interrupted.

    Raises :class:`UserError` if the job fails or cannot be submitted. ``train`` runs in the job only.
    """
    slurm_job.require_commands()
    resources = JobResources(**{field.name: getattr(arguments, field.name) for field in fields(JobResources)})
    run_record.record_identity(task.state, task.identity)
    while not task.is_reached():
        submitted = submission.attach_or_submit(task, resources)
        if submitted is None:  # another process acted at the same time: look again
            continue
        if arguments.detach:
            log.info("job %s trains %s; repeat the command to attach to it", submitted["job"], task.folder)
            sys.exit(DETACHED)
        follow(task, submitted)
    task.deliver()


def train_rank(task: Task, train: Train) -> None:
    """Train as one rank of the job, and requeue the job after a signal."""
    with ranks.join(_place()) as rank:
        with _lock_for_leg(task) if rank.is_first else nullcontext():
            rank.barrier()
            stop_signal = train(task, rank)
        if stop_signal:
            if rank.is_first:
                slurm_job.requeue()
            rank.barrier()  # a rank that exits before the requeue would end the job


def rendezvous_port(job: int, start: int) -> int:
    """Return the port at which the ranks of a job meet. It is below the range that operating systems assign.

    The ports differ for jobs whose numbers are less than 645 apart, and for 31 starts of each job and its neighbours.
    """
    return 10_000 + (31 * job + start) % 20_000


def _place() -> ranks.Place:
    process = environment.srun_process()
    port = rendezvous_port(int(environment.job_id()), environment.start_number())
    return ranks.Place(process.index, process.world, process.local_index, process.first_host, port, may_hide_gpus=True)


@contextmanager
def _lock_for_leg(task: Task) -> Iterator[None]:
    """Hold the run's lock for this job. Raises :class:`UserError` if another job is the run's current submission."""
    own, current = os.environ[slurm_job.JOB_NAME], (submission.read(task) or {}).get("name")
    if own != current:
        raise UserError(
            f"this job, {own}, is outdated, because {task.folder} is now trained by {current}; it changed nothing"
        )
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    with lock(task.state / "lock", give_up=lambda: time.monotonic() > deadline) as held:
        if not held:
            raise UserError(f"another process trains {task.folder}; repeat the command after it has ended")
        run_record.record_identity(task.state, task.identity)
        task.prepare_leg()
        yield
