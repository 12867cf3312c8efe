"""How a training is carried out: by this process, by several of this machine, or by one job of a SLURM cluster.

The command that asks for a SLURM job submits it, follows it and can be killed, left or started again at any time: what
it is about to submit stands in ``state/submission.json``, under a name that no other job has, before it is submitted.
Whoever comes later finds the job by that name and follows it too. The job runs a copy of the package made when it was
submitted, after each requeue as well; only a new submission moves a run to new code. Who holds the run's lock when is
told in diffit/runs/run_lock.py.
"""

import logging
import os
import re
import sys
import time
import uuid
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from diffit.cli import UserError, non_negative_int, positive_int
from diffit.launch import slurm_job
from diffit.launch.follow import follow
from diffit.launch.local_ranks import run_ranks, this_command
from diffit.runs import checkpoints, run_record
from diffit.runs.run_lock import lock
from diffit.store import files, fingerprint
from diffit.training import ranks
from diffit.training.ranks import Rank
from diffit.training.task import Task

log = logging.getLogger("diffit")

Train = Callable[[Task, Rank], int | None]  # one rank's part; the signal that ended it before the milestone, or None

DETACHED = 75  # exit status, EX_TEMPFAIL: not there yet, ask again
SUBMITTING_SECONDS = 30  # sbatch may outlive a command that was killed
LOCK_PATIENCE_SECONDS = 600


def add_arguments(parser: ArgumentParser) -> None:
    """The options that say where and with what a training runs."""
    parser.add_argument("--launcher", choices=["local", "slurm"], default="local", help="here, or as a SLURM job")
    parser.add_argument("--ranks", type=positive_int, default=1, help="local: processes on this machine")
    parser.add_argument("--partition", default="", help="slurm: partition (default: the cluster's)")
    parser.add_argument("--account", default="", help="slurm: account (default: the cluster's)")
    parser.add_argument("--nodes", type=positive_int, default=1, help="slurm: nodes")
    parser.add_argument("--gpus", type=non_negative_int, default=0, help="slurm: GPUs per node, one rank each")
    parser.add_argument("--cpus", type=non_negative_int, default=0, help="slurm: CPUs a rank")
    parser.add_argument("--memory", default="", help="slurm: memory a node, as sbatch takes it")
    parser.add_argument("--hours", type=_hours, default=24, help="slurm: time limit; the training goes on beyond it")
    parser.add_argument("--sbatch", default="", metavar="'KEY=VALUE …'", help="slurm: further options of sbatch")
    parser.add_argument("--setup", default="", metavar="LINE", help="slurm: shell line run before the ranks start")
    parser.add_argument("--detach", action="store_true", help="slurm: leave the job alone once it is submitted")


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0
    if not hours > 0:
        raise ArgumentTypeError(f"{text!r} is not a number of hours")
    return hours


def launch(task: Task, train: Train, arguments: Namespace) -> None:
    """Train as asked and deliver the milestone. Exits with 128 + signal where a signal ended it before."""
    if ranks.in_job():
        _in_job(task, train)
    elif ranks.is_rank():
        with ranks.join() as rank:
            stopped = train(task, rank)
        _leave(stopped)
    elif arguments.launcher == "local":
        _here(task, train, arguments.ranks)
    else:
        names = ("partition", "account", "nodes", "gpus", "cpus", "memory", "hours", "sbatch", "setup")
        _as_job(task, slurm_job.Request(*(getattr(arguments, name) for name in names)), arguments.detach)


def _here(task: Task, train: Train, count: int) -> None:
    # A milestone that the training of a later one passes is published at once, while that one goes on.
    with lock(task.state / "lock", unless=task.is_reached) as held:
        run_record.claim(task.state, task.identity)
        if held and not task.is_reached():
            task.prepare()
            if count == 1:
                with ranks.join() as rank:
                    stopped = train(task, rank)
                _leave(stopped)
            elif status := run_ranks(count, this_command()):
                sys.exit(status)
        task.deliver()


def _leave(stopped: int | None) -> None:
    if stopped:
        sys.exit(128 + stopped)


def _in_job(task: Task, train: Train) -> None:
    with ranks.join() as rank:
        with _leg(task) if rank.is_first else nullcontext():
            rank.barrier()
            stopped = train(task, rank)
        if stopped:
            if rank.is_first:
                slurm_job.requeue()
            rank.barrier()  # a rank that left before would end the job


@contextmanager
def _leg(task: Task) -> Iterator[None]:
    """Hold the run for a job that begins or goes on, if it is the one that the run waits for."""
    own, current = os.environ[slurm_job.SUBMISSION], (_submission(task) or {}).get("name")
    if own != current:
        raise UserError(f"this job, {own}, is no longer that of {task.folder}, which is {current}; nothing was done")
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    with lock(task.state / "lock", unless=lambda: time.monotonic() > deadline) as held:
        if not held:
            raise UserError(f"another process trains {task.folder}; once it has ended, the same command goes on")
        run_record.claim(task.state, task.identity)
        task.prepare()
        yield


def _as_job(task: Task, request: slurm_job.Request, detach: bool) -> None:
    slurm_job.require()
    run_record.claim(task.state, task.identity)
    while not task.is_reached():
        submission = _current(task, request)
        if submission is None:  # it changed hands just now
            continue
        if detach:
            log.info("job %s trains %s; the same command attaches to it again", submission["job"], task.folder)
            sys.exit(DETACHED)
        follow(task, submission)
    task.deliver()


def _current(task: Task, request: slurm_job.Request) -> dict | None:
    """The submission whose job is queued or runs, a new one where there is none; None where another process knows."""
    before = _submission(task)
    if running := _running(task, before):
        return running

    def settled() -> bool:
        return task.is_reached() or _submission(task) != before

    with lock(task.state / "lock", unless=settled, ended=before and before["job"]) as held:
        if not held or settled():
            return None
        return _submit(task, request)


def _running(task: Task, submission: dict | None) -> dict | None:
    """The submission, with its job's number, where its job has not ended."""
    if submission is None:
        return None
    job = slurm_job.wait_for_answer(submission["name"])
    while job is None and submission["job"] is None and time.time() - submission["at"] < SUBMITTING_SECONDS:
        time.sleep(1)
        job = slurm_job.wait_for_answer(submission["name"])
    if job is None or job.has_ended:
        return None
    if submission["job"] is None:
        submission = {**submission, "job": job.id}
        files.write_json(_record(task), submission)
    log.info("job %s trains %s already: following it", job.id, task.folder)
    if submission["code"] != run_record.code_of(task.identity):
        log.info("it keeps the code that it was submitted with, from %s", submission["package"])
    return submission


def _submit(task: Task, request: slurm_job.Request) -> dict:
    task.refuse_what_has_passed()
    task.refuse_uneven(request.ranks)
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", task.folder.name)  # SLURM replaces %j and the like
    name, logs = f"diffit-{plain}-{uuid.uuid4().hex[:8]}", Path("logs/train") / plain / "slurm"
    package = fingerprint.copy(task.state.absolute() / "code")
    submission = {
        "name": name,
        "job": None,
        "at": time.time(),
        "code": run_record.code_of(task.identity),
        "package": str(package),
        "logs": str(logs),
        "kimg": task.kimg,
        "images": checkpoints.Checkpoints(task.state).images(),
    }
    files.write_json(_record(task), submission)
    job_ranks = slurm_job.JobRanks(name, sys.modules["__main__"].__spec__.name, sys.argv[1:])
    comment = f"trains {task.folder.absolute()} to {task.kimg} kimg"
    submission["job"] = slurm_job.submit(job_ranks, request, logs, package, comment)
    files.write_json(_record(task), submission)
    log.info("job %s, %s, %s", submission["job"], name, comment)
    return submission


def _record(task: Task) -> Path:
    return task.state / "submission.json"


def _submission(task: Task) -> dict | None:
    path = _record(task)
    return files.read_json(path, remedy="delete it if no job of the run is in squeue") if path.exists() else None
