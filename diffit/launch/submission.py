"""The submission of a run: the SLURM job that trains it, in ``state/submission.json``.

The record is written before the job is submitted, with a job name that is unique. A command that starts later finds the
job by this name, even if the command that submitted it was killed before it knew the job's number.
"""

import logging
import re
import sys
import time
import uuid
from pathlib import Path

from diffit.launch import slurm_job
from diffit.launch.slurm_job import Job, JobRanks, JobResources
from diffit.runs import checkpoints, run_record
from diffit.runs.run_lock import lock
from diffit.store import files, fingerprint
from diffit.training.task import Task

log = logging.getLogger("diffit")

APPEARANCE_SECONDS = 30  # sbatch may outlive the command that called it, so its job may appear later


def read(task: Task) -> dict | None:
    """Read the record of the last submission; None if there is none."""
    path = _path(task)
    return files.read_json(path, remedy="delete it if squeue shows no job of the run") if path.exists() else None


def attach_or_submit(task: Task, resources: JobResources) -> dict | None:
    """Return the record of the job to follow: the last submission if its job has not ended, otherwise a new one.

    Returns None if meanwhile another process reached the milestone or submitted a job.
    """
    last = read(task)
    if last and (attached := _attach(task, last)):
        return attached

    def is_outdated() -> bool:
        return task.is_reached() or read(task) != last

    with lock(task.state / "lock", give_up=is_outdated, ended_job=last and last["job"]) as held:
        return _submit(task, resources) if held and not is_outdated() else None


def _attach(task: Task, submitted: dict) -> dict | None:
    """Return the record, with the job's number, if its job has not ended; otherwise None."""
    job = _find_job(submitted)
    if job is None or job.has_ended:
        return None
    if submitted["job"] is None:
        submitted = {**submitted, "job": job.id}
        files.write_json(_path(task), submitted)
    log.info("job %s already trains %s: following it", job.id, task.folder)
    if submitted["code"] != run_record.code_fingerprint(task.identity):
        log.info("it runs the code with which it was submitted, a copy in %s", submitted["package"])
    return submitted


def _find_job(submitted: dict) -> Job | None:
    """Find the job of a submission; None if SLURM does not know it."""
    while True:
        job = slurm_job.wait_for_answer(submitted["name"])
        may_appear = submitted["job"] is None and time.time() - submitted["at"] < APPEARANCE_SECONDS
        if job or not may_appear:
            return job
        time.sleep(1)


def _submit(task: Task, resources: JobResources) -> dict:
    task.refuse_passed_milestone()
    task.refuse_indivisible_batch(resources.ranks)
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", task.folder.name)  # SLURM replaces patterns such as %j
    name, logs = f"diffit-{plain}-{uuid.uuid4().hex[:8]}", Path("logs/train") / plain / "slurm"
    package = fingerprint.copy(task.state.absolute() / "code")
    submitted = {
        "name": name,
        "job": None,
        "at": time.time(),
        "code": run_record.code_fingerprint(task.identity),
        "package": str(package),
        "logs": str(logs),
        "kimg": task.kimg,
        "images": checkpoints.Checkpoints(task.state).images(),
    }
    files.write_json(_path(task), submitted)
    job_ranks = JobRanks(name, sys.modules["__main__"].__spec__.name, sys.argv[1:])
    comment = f"trains {task.folder.absolute()} to {task.kimg} kimg"
    submitted["job"] = slurm_job.submit(job_ranks, resources, logs, package, comment)
    files.write_json(_path(task), submitted)
    log.info("job %s, %s, %s", submitted["job"], name, comment)
    return submitted


def _path(task: Task) -> Path:
    return task.state / "submission.json"
