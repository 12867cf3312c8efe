"""Submit a one-minute test job to check that a compute node sees this folder and can run this Python.

    python -m diffit.planning.checks.probe_job FOLDER

is what the job runs on its node.
"""

import contextlib
import json
import shlex
import shutil
import socket
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from diffit.cli import Parser, run_command
from diffit.planning.checks import driver
from diffit.planning.checks.cluster import PROFILE
from diffit.planning.checks.result import CheckResult, ok, warning, wrong
from diffit.planning.checks.slurm_site import JobRequest
from diffit.slurm.commands import SlurmError, ask
from diffit.store import files

JOB_MINUTES = 5
CLOCK_SECONDS = 5  # by which clocks may differ, and for which a file system may hide a file of another machine
POLL_SECONDS = 1
# Options of sbatch that a test job drops; constraints and QOS stay.
LARGE = ("--mem", "--cpus", "--ntasks")
# The states of a job that has not ended.
UNFINISHED = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED")


@dataclass(frozen=True)
class TestJob:
    """A submitted test job; it reads ``question`` in its folder and writes ``answer.json`` there."""

    request: JobRequest
    folder: Path
    question: str
    number: str


def check(request: JobRequest, results: Path, patience: float) -> list[CheckResult]:
    """Submit a test job for a request, with one GPU if the request has any, and check its answer.

    Args:
        results: the folder of results; the job reads and writes a temporary folder in it.
        patience: seconds after which the job is cancelled.
    """
    results.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".preflight-", dir=results.absolute()))
    question = uuid.uuid4().hex
    (folder / "question").write_text(question)
    try:
        job = TestJob(request, folder, question, _submit_test_job(request, folder))
    except SlurmError as error:
        shutil.rmtree(folder)
        return [wrong(f"{request.place} refuses a test job: {error}", f"correct account and partition in {PROFILE}")]
    try:
        state = _wait_for_test_job(job, patience)
        if not _is_visible(folder / "answer.json"):
            return [_explain_no_answer(job, state, patience)]
        answer = files.read_json(folder / "answer.json", remedy="try again")
        return [_check_folder(job, answer), *_check_clock(job, answer), *_check_gpus(job, answer)]
    finally:
        with contextlib.suppress(SlurmError):
            ask("scancel", "--quiet", job.number)
        shutil.rmtree(folder, ignore_errors=True)


def _submit_test_job(request: JobRequest, folder: Path) -> str:
    command = f"{shlex.quote(sys.executable)} -m diffit.planning.checks.probe_job {shlex.quote(str(folder))}"
    kept = tuple(option for option in request.extra if not option.startswith(LARGE))
    small = replace(request, nodes=1, gpus=min(1, request.gpus), minutes=JOB_MINUTES, extra=kept)
    log = ["--job-name=diffit-preflight", f"--output={folder}/log", f"--chdir={Path.cwd()}"]
    setup = f"{request.setup}\n" if request.setup else ""
    return ask("sbatch", "--parsable", *small.options(), *log, "--wrap", setup + command).strip().split(";")[0]


def _wait_for_test_job(job: TestJob, patience: float) -> str:
    """Wait until the job has answered, has ended, or ``patience`` seconds have passed; return its last state."""
    until, state = time.monotonic() + patience, "PENDING"
    while time.monotonic() < until and not _is_visible(job.folder / "answer.json"):
        query = ["squeue", "--noheader", f"--jobs={job.number}", "--states=all", "--format=%T"]
        try:
            state = ask(*query).strip() or "COMPLETED"
        except SlurmError:  # SLURM forgets a job some minutes after its end
            state = "COMPLETED"
        if state not in UNFINISHED:
            time.sleep(CLOCK_SECONDS)
            break
        time.sleep(POLL_SECONDS)
    return state


def _is_visible(path: Path) -> bool:
    list(path.parent.iterdir())  # makes an NFS client read the folder again
    return path.exists()


def _explain_no_answer(job: TestJob, state: str, patience: float) -> CheckResult:
    """Why the job left no answer, from its state and its log."""
    place, log = job.request.place, job.folder / "log"
    if state in ("PENDING", "CONFIGURING"):
        return warning(
            f"{place} gave no node within {patience:.0f} s, so no test job ran",
            "try again later or with --wait SECONDS, or skip it with --no-probe",
        )
    last_line = log.read_text().strip().splitlines()[-1:] if log.exists() else []
    if not last_line:
        return wrong(
            f"a test job in {place} ended ({state}) and left nothing: its node does not see {job.folder.parent}",
            "work in a folder on the cluster's shared file system",
        )
    return wrong(
        f"a test job in {place} failed on its node: {last_line[0]}",
        "make this folder and its .venv usable on the node as well",
    )


def _check_folder(job: TestJob, answer: dict) -> CheckResult:
    host, results = answer["host"], job.folder.parent
    if answer["question"] != job.question:
        return wrong(f"{host} reads other content in {results}", "work on the cluster's shared file system")
    here = " (this machine)" if host == socket.gethostname() else ""
    return ok(f"{host}{here} of {job.request.place} reads and writes {results} and runs this Python")


def _check_clock(job: TestJob, answer: dict) -> list[CheckResult]:
    off = answer["time"] - (job.folder / "answer.json").stat().st_mtime
    if abs(off) <= CLOCK_SECONDS:
        return []
    remedy = "tell your administrators: Snakemake compares modification times of files"
    return [warning(f"the clock of {answer['host']} differs from the file system's by {off:.0f} s", remedy)]


def _check_gpus(job: TestJob, answer: dict) -> list[CheckResult]:
    if not job.request.gpus:
        return []
    found = driver.check(answer["driver"], answer["host"])
    if any(result.level == "wrong" for result in found):  # torch sees no GPU then
        return found
    if answer["gpus"]:
        return [*found, ok(f"torch sees {answer['gpus']} × {answer['gpu']} there")]
    remedy = f"run nvidia-smi there, or load its modules with setup in {PROFILE}; otherwise jobs compute on CPUs"
    return [*found, warning(f"torch sees no GPU on {answer['host']}, although one was requested", remedy)]


def main() -> None:
    import torch  # slow to import; the check itself does not need it

    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the file question; answer.json is written there")
    folder = parser.parse_args().folder
    gpus = torch.cuda.device_count()
    answer = {
        "question": (folder / "question").read_text(),
        "host": socket.gethostname(),
        "time": time.time(),
        "gpus": gpus,
        "gpu": torch.cuda.get_device_name(0) if gpus else "",
        "driver": driver.read(),
    }
    with files.atomic(folder / "answer.json") as temporary:
        temporary.write_text(json.dumps(answer))


if __name__ == "__main__":
    run_command(main)
