"""The SLURM job of a training: submit it through submitit, find it by its name, cancel it, requeue it.

The name of a job is unique, so the job can be found even if its number could not be recorded after the submission. If
SLURM's controller does not answer, the state of a job is unknown: :class:`SlurmError`.
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
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from diffit import cli
from diffit.cli import UserError
from diffit.slurm import environment
from diffit.slurm.commands import SlurmError, ask
from diffit.store import files
from diffit.training.ranks import LAUNCHER

log = logging.getLogger("diffit")

NAME = "slurm"
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT", "UNKNOWN",
}  # fmt: skip
UNREACHABLE = re.compile("unable to contact|connect failure|connection refused|timed out|zero bytes", re.IGNORECASE)
RETRY_SECONDS = 5
REQUEUE_TRIES = 12
UNLIMITED = 10**9  # submitit counts requeues
WARNING_SECONDS = 300  # from SLURM's signal to the end of the time limit; a quarter of short limits
JOB_NAME = "DIFFIT_SUBMISSION"  # environment variable of a job's ranks: the name of the job


@dataclass(frozen=True)
class JobResources:
    """The resources of a job, named like those of rule train. Values that are empty or 0 are left to the cluster.

    Attributes:
        slurm_partition: partition.
        slurm_account: account.
        nodes: number of nodes.
        gpu: GPUs per node. Each GPU has one rank; without GPUs, each node has one rank.
        cpus_per_task: CPUs per rank.
        mem_mb: memory per node in MB.
        runtime: time limit in minutes, not 0, because the warning before its end depends on it.
        slurm_extra: further options of sbatch, ``"--key=value --flag"``.
        setup: shell line that runs on the first node before the ranks start.
    """

    slurm_partition: str
    slurm_account: str
    nodes: int
    gpu: int
    cpus_per_task: int
    mem_mb: int
    runtime: int
    slurm_extra: str
    setup: str

    @property
    def ranks_per_node(self) -> int:
        return max(1, self.gpu)

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class Job:
    """A job in SLURM's queue. The state of a job that the queue has already forgotten is UNKNOWN."""

    id: str
    state: str
    reason: str

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


class JobRanks:
    """What each rank of a job runs: a command of this package, from the job's own copy of the package.

    submitit pickles the object by reference to this class, so that a requeued job loads it with its own copy's code.

    Args:
        name: name of the job.
        module: the module of the command, which is imported in the rank.
        arguments: arguments of the command.
    """

    def __init__(self, name: str, module: str, arguments: list[str]):
        self.name, self.module, self.arguments = name, module, arguments

    def __call__(self) -> None:
        """Run the command as a rank."""
        os.environ[LAUNCHER], os.environ[JOB_NAME] = NAME, self.name
        sys.argv[1:] = self.arguments
        cli.run_command(importlib.import_module(self.module).main)

    def checkpoint(self) -> DelayedSubmission:
        """submitit hook for signals that arrive before our handlers exist: resubmit, save nothing."""
        return DelayedSubmission(self)


def require_commands() -> None:
    """Raise :class:`UserError` if this machine has no SLURM commands."""
    if not shutil.which("sbatch"):
        raise UserError("sbatch is not on this machine; run the command on a login node, or with --launcher local")


def submit(job_ranks: JobRanks, resources: JobResources, logs: Path, package: Path, comment: str) -> str:
    """Submit a job and return its number; wait, with a warning, while SLURM does not answer.

    Args:
        job_ranks: what each rank runs.
        resources: what the job requests.
        logs: folder for the output of the ranks.
        package: folder with the copy of the package that the job runs.
        comment: comment of the job, shown by squeue.

    Raises :class:`UserError` with sbatch's message if SLURM refuses the job.
    """
    executor, has_warned = _executor(job_ranks, resources, logs, package, comment), False
    while True:
        try:
            with _protected_submission():
                return executor.submit(job_ranks).job_id
        except (FailedJobError, FailedSubmissionError) as error:
            message = str(error)
        if not UNREACHABLE.search(message):
            lines = message.splitlines()
            reason = next((line for line in lines if "error:" in line), message.strip()).split("error: ")[-1]
            raise UserError(
                f"SLURM refuses the job {job_ranks.name}: {reason}; correct the profile's resources of rule train"
            )
        if not has_warned:
            log.warning("warning: SLURM does not answer; waiting to submit %s", job_ranks.name)
            has_warned = True
        time.sleep(RETRY_SECONDS)
        if job := wait_for_answer(job_ranks.name):  # SLURM received the job, only its answer was lost
            return job.id


def _executor(
    job_ranks: JobRanks, resources: JobResources, logs: Path, package: Path, comment: str
) -> submitit.SlurmExecutor:
    # The shell ignores signals until submitit handles them: a rank killed by a signal would end the job as failed.
    # -P: do not import from the working directory, whose sources may change before the job starts.
    python = f"""sh -c 'trap "" TERM USR2; exec "$0" "$@"' {shlex.quote(sys.executable)} -P"""
    executor = submitit.SlurmExecutor(logs, max_num_timeout=UNLIMITED, python=python)
    pickle = _write_pickle(executor.folder, job_ranks, resources)
    executor.update_parameters(
        job_name=job_ranks.name,
        comment=comment,
        signal_delay_s=min(WARNING_SECONDS, resources.runtime * 15),
        wckey=None,
        stderr_to_stdout=True,
        setup=_setup_lines(resources, package, pickle),
        **_sbatch_parameters(resources),
    )
    return executor


def _write_pickle(folder: Path, job_ranks: JobRanks, resources: JobResources) -> Path:
    """Write what the ranks run to a file whose name is known before the submission.

    submitit moves its own pickle in place only after sbatch has returned. The job copies this one itself, so that it
    starts even if this process is killed in between.
    """
    pickle = folder / f"{job_ranks.name}.pkl"
    pickle.parent.mkdir(parents=True, exist_ok=True)
    delayed = DelayedSubmission(job_ranks)
    delayed.set_timeout(resources.runtime, UNLIMITED)
    with files.atomic(pickle) as temporary:
        delayed.dump(temporary)
    return pickle


def _setup_lines(resources: JobResources, package: Path, pickle: Path) -> list[str]:
    """Return the shell lines that run before the ranks start."""
    in_place = f'{shlex.quote(str(pickle.parent))}/"$SLURM_JOB_ID"_submitted.pkl'
    return [
        *([resources.setup] if resources.setup else []),
        f"export PYTHONPATH={shlex.quote(str(package))}:$PYTHONPATH OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-1}}",
        f"cp --no-clobber {shlex.quote(str(pickle))} {in_place}",
    ]


def _sbatch_parameters(resources: JobResources) -> dict[str, Any]:
    """Return the resources as submitit's parameters. None is left to the cluster."""
    extra = (option.lstrip("-").partition("=") for option in shlex.split(resources.slurm_extra))
    # srun does not inherit the CPUs per task and the way to open logs from sbatch.
    cpus = [f"--cpus-per-task={resources.cpus_per_task}"] if resources.cpus_per_task else []
    return {
        "partition": resources.slurm_partition or None,
        "account": resources.slurm_account or None,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "gpus_per_node": resources.gpu or None,
        "cpus_per_task": resources.cpus_per_task or None,
        "mem": f"{resources.mem_mb}M" if resources.mem_mb else None,
        "time": resources.runtime,
        "srun_args": ["--kill-on-bad-exit=1", "--open-mode=append", *cpus],
        "additional_parameters": {
            "requeue": True,
            **{key.replace("-", "_"): value if equals else True for key, equals, value in extra},
        },
    }


def find(name: str) -> Job | None:
    """Return the job with this name; None if SLURM's controller does not know it (any more).

    Raises :class:`SlurmError` if the controller does not answer.
    """
    output = ask("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%A|%T|%r")
    jobs = [Job(*line.split("|", 2)) for line in output.splitlines() if line.strip()]
    return jobs[-1] if jobs else None


def wait_for_answer(name: str) -> Job | None:
    """Call :func:`find` until SLURM answers."""
    has_warned = False
    while True:
        try:
            return find(name)
        except SlurmError as error:
            if not has_warned:
                log.warning("warning: SLURM does not answer (%s); waiting", error)
                has_warned = True
            time.sleep(RETRY_SECONDS)


def outcome(job: str) -> str | None:
    """Return the final state of a job from the accounting; None if the accounting does not know it."""
    try:
        output = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State")
    except SlurmError:
        return None
    state = (output.split() or [""])[0]  # the output may be "CANCELLED by 1000"
    return state if state in ENDED else None


def cancel(job: str) -> None:
    """Cancel a job. Raises :class:`SlurmError` if SLURM does not answer."""
    ask("scancel", job)


def requeue() -> None:
    """Requeue the job of this rank, unless SLURM is already ending or requeueing it.

    Requeueing a cancelled job would start it again. Raises :class:`UserError` if SLURM does not answer.
    """
    job = environment.job_id()
    for _ in range(REQUEUE_TRIES):
        try:
            state = ask("squeue", "--noheader", f"--jobs={job}", "--format=%T").strip()
            if state == "RUNNING":
                ask("scontrol", "requeue", job)
                log.info("job %s is requeued", job)
            else:
                log.info("job %s is already %s", job, state or "gone")
            return
        except SlurmError as error:
            reason = error
            time.sleep(RETRY_SECONDS)
    raise UserError(f"job {job} could not be requeued ({reason}); its state is saved: repeat the command to continue")


@contextmanager
def _protected_submission() -> Iterator[None]:
    """Delay signals until sbatch has answered, and hide the variables of a job that this process may run in."""
    kept = environment.site_variables()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        with clean_env():
            os.environ.update(kept)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
