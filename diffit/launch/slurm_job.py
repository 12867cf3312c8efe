"""SLURM's one door: submit a job of ranks through submitit, look for it by its name, cancel it, requeue it.

A job is looked for by a name that no other job has, so that it is found whether or not its number could be written
down after it was submitted. Where SLURM's controller does not answer, :class:`SlurmError` says so, and nothing is
concluded from it.
"""

import importlib
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from diffit import cli
from diffit.cli import UserError
from diffit.slurm import environment
from diffit.slurm.commands import SlurmError, ask
from diffit.store import files
from diffit.training import ranks

log = logging.getLogger("diffit")

ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT", "UNKNOWN",
}  # fmt: skip
UNREACHABLE = re.compile("unable to contact|connect failure|connection refused|timed out|zero bytes", re.IGNORECASE)
RETRY_SECONDS = 5
REQUEUE_TRIES = 12
UNLIMITED = 10**9  # of the requeues that submitit counts
SUBMISSION = "DIFFIT_SUBMISSION"  # in the environment of a job's ranks: the job's name


@dataclass(frozen=True)
class Request:
    """What a job asks of the cluster, in sbatch's notation; what is empty or 0 is left to the cluster."""

    partition: str
    account: str
    nodes: int
    gpus: int  # a node; one rank each, and one rank a node where there are none
    cpus: int  # a rank
    memory: str  # a node
    hours: float
    sbatch: str  # further options, "key=value key=value"
    setup: str  # shell line before the ranks start

    @property
    def ranks_per_node(self) -> int:
        return max(1, self.gpus)

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class Job:
    """A job as the queue shows it; UNKNOWN is the state of one that ended so long ago that the queue forgot it."""

    id: str
    state: str
    reason: str

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


class JobRanks:
    """What each rank of a job runs: a command of this package, from the copy of it that the job was given.

    submitit pickles this by its name, so that a requeued job reads it with the code of its own copy.
    """

    def __init__(self, name: str, module: str, arguments: list[str]):
        self.name, self.module, self.arguments = name, module, arguments

    def __call__(self) -> None:
        os.environ[ranks.LAUNCHER], os.environ[SUBMISSION] = ranks.SLURM, self.name
        sys.argv[1:] = self.arguments
        cli.run_command(importlib.import_module(self.module).main)

    def checkpoint(self) -> DelayedSubmission:
        """Start again, for a signal before training has handlers of its own. Saves nothing: it runs in mid-step."""
        return DelayedSubmission(self)


def require() -> None:
    """Raise :class:`UserError` where this machine has no SLURM commands."""
    if not shutil.which("sbatch"):
        raise UserError("sbatch is not on this machine; run this on a login node, or with launcher local")


def submit(job_ranks: JobRanks, request: Request, logs: Path, code: Path, comment: str) -> str:
    """Submit a job of these ranks and return its number; wait, and say so, while SLURM does not answer.

    Raises :class:`UserError` with what sbatch says where it refuses the job.
    """
    executor, warned = _executor(job_ranks, request, logs, code, comment), False
    while True:
        try:
            with _undisturbed():
                return executor.submit(job_ranks).job_id
        except (FailedJobError, FailedSubmissionError) as error:
            said = str(error)
        if not UNREACHABLE.search(said):
            reason = next((line for line in said.splitlines() if "error:" in line), said.strip()).split("error: ")[-1]
            raise UserError(
                f"SLURM refuses the job {job_ranks.name}: {reason}; correct the profile's resources of train"
            )
        if not warned:
            log.warning("warning: SLURM does not answer; waiting to submit %s", job_ranks.name)
            warned = True
        time.sleep(RETRY_SECONDS)
        if job := wait_for_answer(job_ranks.name):  # it had arrived, only the answer had not
            return job.id


def _executor(job_ranks: JobRanks, request: Request, logs: Path, code: Path, comment: str) -> submitit.SlurmExecutor:
    # Signals that come before submitit handles them must not kill the ranks, which would end the job as failed.
    # -P: not the sources in the working directory, which may be others by the time the job starts.
    python = f"""sh -c 'trap "" TERM USR2; exec "$0" "$@"' {shlex.quote(sys.executable)} -P"""
    executor = submitit.SlurmExecutor(logs, max_num_timeout=UNLIMITED, python=python)
    minutes = max(1, round(request.hours * 60))
    # submitit puts the pickle in its place after sbatch; the job does it itself, in case this process is killed before.
    pickle = executor.folder / f"{job_ranks.name}.pkl"
    pickle.parent.mkdir(parents=True, exist_ok=True)
    delayed = DelayedSubmission(job_ranks)
    delayed.set_timeout(minutes, UNLIMITED)
    with files.atomic(pickle) as temporary:
        delayed.dump(temporary)
    in_place = f'{shlex.quote(str(executor.folder))}/"$SLURM_JOB_ID"_submitted.pkl'
    setup = [
        *([request.setup] if request.setup else []),
        f"export PYTHONPATH={shlex.quote(str(code))}:$PYTHONPATH OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-1}}",
        f"cp --no-clobber {shlex.quote(str(pickle))} {in_place}",
    ]
    further = (option.partition("=") for option in shlex.split(request.sbatch))
    executor.update_parameters(
        job_name=job_ranks.name,
        comment=comment,
        partition=request.partition or None,
        account=request.account or None,
        nodes=request.nodes,
        ntasks_per_node=request.ranks_per_node,
        gpus_per_node=request.gpus or None,
        cpus_per_task=request.cpus or None,
        mem=request.memory or None,
        time=minutes,
        signal_delay_s=min(300, minutes * 15),
        wckey=None,
        stderr_to_stdout=True,
        setup=setup,
        # srun takes neither the CPUs of a rank nor the way to open logs from sbatch.
        srun_args=[
            "--kill-on-bad-exit=1",
            "--open-mode=append",
            *([f"--cpus-per-task={request.cpus}"] if request.cpus else []),
        ],
        additional_parameters={
            "requeue": True,
            **{key.lstrip("-").replace("-", "_"): value if equals else True for key, equals, value in further},
        },
    )
    return executor


def find(name: str) -> Job | None:
    """The job of a name, None where SLURM's controller knows none (any more). Raises :class:`SlurmError`."""
    said = ask("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%A|%T|%r")
    jobs = [Job(*line.split("|", 2)) for line in said.splitlines() if line.strip()]
    return jobs[-1] if jobs else None


def wait_for_answer(name: str) -> Job | None:
    """:func:`find`, again and again until SLURM answers."""
    warned = False
    while True:
        try:
            return find(name)
        except SlurmError as error:
            if not warned:
                log.warning("warning: SLURM does not answer (%s); waiting", error)
                warned = True
            time.sleep(RETRY_SECONDS)


def outcome(job: str) -> str | None:
    """How a job ended, by the accounting; None where that does not say."""
    try:
        said = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State")
    except SlurmError:
        return None
    state = (said.split() or [""])[0]  # "CANCELLED by 1000"
    return state if state in ENDED else None


def cancel(job: str) -> None:
    """End a job for good. Raises :class:`SlurmError`."""
    ask("scancel", job)


def requeue() -> None:
    """Send the job that this rank is part of back to the queue, unless SLURM is ending or requeueing it by itself.

    To requeue a cancelled job would bring it back to life. Raises :class:`UserError` where SLURM stays silent.
    """
    job = environment.job_id()
    for _ in range(REQUEUE_TRIES):
        try:
            state = ask("squeue", "--noheader", f"--jobs={job}", "--format=%T").strip()
            if state == "RUNNING":
                ask("scontrol", "requeue", job)
                log.info("job %s goes back to the queue", job)
            else:
                log.info("job %s is %s already", job, state or "gone")
            return
        except SlurmError as error:
            said = error
            time.sleep(RETRY_SECONDS)
    raise UserError(f"job {job} could not be requeued ({said}); its state is saved, the same command goes on from it")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Submit with signals held back until sbatch has answered, and without variables of a job around this process."""
    kept = environment.site_variables()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        with clean_env():
            os.environ.update(kept)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
