"""The costs of results from the accounting of a real cluster."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers.places import REPOSITORY

from diffit.planning.accounting import StageJobs, account, ask_sacct, jobs_of_stage, parse_starts
from diffit.store import files
from diffit.store.manifest import gather, read_manifest

pytestmark = pytest.mark.usefixtures("slurm_commands")

SEAL = """
import sys
from pathlib import Path
from diffit.store import tars
tars.write_tar(Path(sys.argv[1]), [("a", {"cls": b"1"})])
"""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}


def submit(*options: str, command: str, folder: Path) -> str:
    called = [
        "sbatch",
        "--parsable",
        f"--output={folder}/%A_%a.log",
        f"--chdir={REPOSITORY}",
        *options,
        "--wrap",
        command,
    ]
    return subprocess.run(called, capture_output=True, text=True, check=True).stdout.strip()


def wait(*jobs: str) -> None:
    """Wait until the accounting knows that the last start of each job has ended."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        known = parse_starts(ask_sacct(jobs))
        if set(jobs) <= set(known) and all(known[job][-1].state in ENDED for job in jobs):
            return
        time.sleep(0.5)
    pytest.fail(f"{jobs} did not end: {ask_sacct(jobs)}")


def seal(path: str) -> str:
    """Return a shell line that writes a tar with its sidecar."""
    return f"PYTHONPATH={REPOSITORY} {sys.executable} -c {shlex.quote(SEAL)} {path}"


def row(frame: pd.DataFrame, stage: str) -> dict:
    return frame.set_index("stage").loc[stage].to_dict()


def test_the_cost_of_a_stage_is_the_allocation_of_its_jobs(tmp_path):
    script = f"{seal(f'{tmp_path}/data/0-of-2.tar')}; sleep 3"
    one = submit("--gres=gpu:2", command=script, folder=tmp_path)
    array = submit("--array=7", command=seal(f"{tmp_path}/data/1-of-2.tar"), folder=tmp_path)
    wait(one, f"{array}_7")
    assert files.read_json(tmp_path / "data/0-of-2.json", "")["job"] == one
    gather(tmp_path / "data", 2)
    assert "job" not in read_manifest(tmp_path / "data")
    stage = jobs_of_stage("sample", [tmp_path / "data/manifest.json"])
    assert stage == StageJobs("sample", [one, f"{array}_7"], 0)
    found = row(account([stage]), "sample")
    assert (found["jobs"], found["starts"], found["note"]) == (2, 2, "")
    seconds = parse_starts(ask_sacct([one]))[one][0].hours * 3600
    assert seconds >= 3 and found["gpu_hours"] == pytest.approx(2 * seconds / 3600)


def test_every_start_of_a_requeued_training_counts(tmp_path):
    job = submit("--requeue", "--gres=gpu:4", command=f"echo start >> {tmp_path}/starts; sleep 4", folder=tmp_path)
    while not (tmp_path / "starts").exists():
        time.sleep(0.2)
    time.sleep(2)
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait(job)
    files.write_json(tmp_path / "legs.json", {"legs": [{"job": job}, {"job": job}]})
    found = row(account([jobs_of_stage("train", [tmp_path / "legs.json"])]), "train")
    both = parse_starts(ask_sacct([job]))[job]
    assert [start.state for start in both] == ["REQUEUED", "COMPLETED"]
    assert (found["jobs"], found["starts"]) == (1, 2)
    assert found["gpu_hours"] == pytest.approx(4 * sum(start.hours for start in both)) and both[0].hours * 3600 >= 1


def test_an_unavailable_accounting_leaves_gaps_with_the_reason(cluster):
    cluster.stop_slurmdbd()
    try:
        found = row(account([StageJobs("train", ["1"], 0)]), "train")
    finally:
        cluster.start_slurmdbd()
        cluster.run("sacctmgr", "--noheader", "show", "cluster", retry=True)
    assert found["note"].startswith("sacct failed (") and pd.isna(found["gpu_hours"])


def test_a_job_that_is_unknown_to_the_accounting_is_a_gap():
    found = row(account([StageJobs("train", ["999999"], 0)]), "train")
    assert found["note"] == "sacct does not know job 999999" and pd.isna(found["cpu_hours"])
