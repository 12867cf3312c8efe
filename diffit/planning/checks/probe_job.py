"""A job of a minute that shows what no description does: whether a compute node sees this folder and runs this Python.

python -m diffit.planning.checks.probe_job FOLDER      what the job runs on its node
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
from dataclasses import replace
from pathlib import Path

from diffit.cli import Parser, run_command
from diffit.planning.checks.cluster import PROFILE
from diffit.planning.checks.result import CheckResult, ok, warning, wrong
from diffit.planning.checks.slurm_site import Request
from diffit.slurm.commands import SlurmError, ask
from diffit.store import files

JOB_MINUTES = 5
CLOCK_SECONDS = 5
POLL_SECONDS = 1
# Options of a request that a probe does not need; constraints and QOS it keeps.
LARGE = ("--mem", "--cpus", "--ntasks")
# What SLURM calls a job that has not ended.
UNFINISHED = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED")


def check(request: Request, results: Path, patience: float) -> list[CheckResult]:
    """Send a job to the partition of a request, with one GPU where it asks for any, and look at what it left.

    Args:
        results: the results folder; the job reads and writes a folder in it that is gone afterwards.
        patience: seconds until the job is taken back.
    """
    results.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".preflight-", dir=results.absolute()))
    nonce = uuid.uuid4().hex
    (folder / "question").write_text(nonce)
    try:
        job = _submit(request, folder)
    except SlurmError as error:
        shutil.rmtree(folder)
        return [
            wrong(f"{request.place} refuses a job of a minute: {error}", f"correct account and partition in {PROFILE}")
        ]
    try:
        state = _wait(job, folder / "answer.json", patience)
        return _judge(request, folder, nonce, state, patience)
    finally:
        with contextlib.suppress(SlurmError):
            ask("scancel", "--quiet", job)
        shutil.rmtree(folder, ignore_errors=True)


def _submit(request: Request, folder: Path) -> str:
    command = f"{shlex.quote(sys.executable)} -m diffit.planning.checks.probe_job {shlex.quote(str(folder))}"
    kept = tuple(option for option in request.extra if not option.startswith(LARGE))
    small = replace(request, nodes=1, gpus=min(1, request.gpus), minutes=JOB_MINUTES, extra=kept)
    log = ["--job-name=diffit-preflight", f"--output={folder}/log", f"--chdir={Path.cwd()}"]
    setup = f"{request.setup}\n" if request.setup else ""
    return ask("sbatch", "--parsable", *small.options(), *log, "--wrap", setup + command).strip().split(";")[0]


def _wait(job: str, answer: Path, patience: float) -> str:
    """The job's last state, once it has answered or ended, or when patience has."""
    until, state = time.monotonic() + patience, "PENDING"
    while time.monotonic() < until and not _seen(answer):
        try:
            state = ask("squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T").strip() or "COMPLETED"
        except SlurmError:  # it has ended long enough ago to be forgotten
            state = "COMPLETED"
        if state not in UNFINISHED:
            time.sleep(CLOCK_SECONDS)  # what another machine wrote may take a moment to be seen here
            break
        time.sleep(POLL_SECONDS)
    return state


def _seen(path: Path) -> bool:
    list(path.parent.iterdir())  # makes NFS look again
    return path.exists()


def _judge(request: Request, folder: Path, nonce: str, state: str, patience: float) -> list[CheckResult]:
    if not _seen(folder / "answer.json"):
        if state in ("PENDING", "CONFIGURING"):
            return [
                warning(
                    f"{request.place} gave no node within {patience:.0f} s, so nothing was tried on one",
                    "try again later or with --wait SECONDS, or leave it out with --no-probe",
                )
            ]
        said = (folder / "log").read_text().strip().splitlines()[-1:] if (folder / "log").exists() else []
        if not said:
            return [
                wrong(
                    f"a job in {request.place} ended ({state}) and left nothing: its node does not see {folder.parent}",
                    "work in a folder on the file system that the cluster shares",
                )
            ]
        return [
            wrong(
                f"a job in {request.place} failed on its node: {said[0]}",
                "this folder and its .venv must work there as well",
            )
        ]
    answer = files.read_json(folder / "answer.json", remedy="try again")
    found = []
    if answer["question"] != nonce:
        found.append(
            wrong(f"{answer['host']} read something else in {folder.parent}", "work on one shared file system")
        )
    else:
        here = " (this very machine)" if answer["host"] == socket.gethostname() else ""
        found.append(
            ok(f"{answer['host']}{here} of {request.place} reads and writes {folder.parent} and runs this Python")
        )
    off = answer["time"] - (folder / "answer.json").stat().st_mtime
    if abs(off) > CLOCK_SECONDS:
        found.append(
            warning(
                f"the clock of {answer['host']} is {off:.0f} s off that of the file system",
                "tell the administrators: Snakemake goes by the times of files",
            )
        )
    if request.gpus and not answer["gpus"]:
        found.append(
            warning(
                f"torch sees no GPU on {answer['host']}, which was asked for one",
                f"see nvidia-smi there, or load what it needs with setup in {PROFILE}; jobs would compute on CPUs",
            )
        )
    elif request.gpus:
        found.append(ok(f"torch sees {answer['gpus']} × {answer['gpu']} there"))
    return found


def main() -> None:
    import torch  # here, since the check itself needs none

    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="with the file question; answer.json is written beside it")
    folder = parser.parse_args().folder
    gpus = torch.cuda.device_count()
    answer = {
        "question": (folder / "question").read_text(),
        "host": socket.gethostname(),
        "time": time.time(),
        "gpus": gpus,
        "gpu": torch.cuda.get_device_name(0) if gpus else "",
    }
    with files.atomic(folder / "answer.json") as temporary:
        temporary.write_text(json.dumps(answer))


if __name__ == "__main__":
    run_command(main)
