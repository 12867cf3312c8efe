"""What a result cost: the jobs behind its files, and the sums of what sacct reports."""

import os
import stat

import pandas as pd
import pytest

from diffit.planning.accounting import StageJobs, account, jobs_of_stage, markdown, parse_starts, table
from diffit.store import files, tars
from diffit.store.manifest import gather

# As SLURM 22.05 prints it: a job of two GPUs with its steps, the same number in an older cluster, a training that was
# requeued twice, a task of an array, a job without GPUs.
SACCT = """\
11|elsewhere|COMPLETED|36000|36000|billing=1,cpu=1,node=1|
11|encode|COMPLETED|3600|14400|billing=4,cpu=4,gres/gpu=2,gres/gpu:a100=2,mem=4G,node=1|
11.batch|batch|COMPLETED|3600|14400|cpu=4,gres/gpu=2,mem=4G,node=1|1073741824
11.0|python|COMPLETED|3590|14360|cpu=4,gres/gpu=2,mem=4G,node=1|3221225472
12|diffit-digits|PREEMPTED|1800|3600|billing=2,cpu=2,gres/gpu=8,node=2|
12.0|python|CANCELLED|1800|3600|cpu=2,gres/gpu=8,node=2|2097152K
12|diffit-digits|TIMEOUT|1800|3600|billing=2,cpu=2,gres/gpu=8,node=2|
12|diffit-digits|COMPLETED|900|1800|billing=2,cpu=2,gres/gpu=8,node=2|
13_4|uuid|COMPLETED|360|360|cpu=1,gres/gpu=1,node=1|
14|uuid|CANCELLED by 0|720|720|cpu=1,node=1|
"""


def row(frame: pd.DataFrame, stage: str) -> dict:
    return frame.set_index("stage").loc[stage].to_dict()


@pytest.fixture
def sacct(tmp_path, monkeypatch):
    """Replace sacct by a shell script."""

    def install(script: str) -> None:
        (tmp_path / "bin").mkdir()
        command = tmp_path / "bin/sacct"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")

    return install


def test_every_start_of_a_requeued_job_counts():
    frame = table([StageJobs("train", ["12"], 0)], parse_starts(SACCT))
    found = row(frame, "train")
    assert (found["jobs"], found["starts"], found["note"]) == (1, 3, "")
    assert (found["gpu_hours"], found["cpu_hours"], found["elapsed_hours"]) == (10, 2.5, 1.25)
    assert found["max_memory_gib"] == 2


def test_steps_report_the_memory_and_are_not_starts():
    found = row(table([StageJobs("encode", ["11"], 0)], parse_starts(SACCT)), "encode")
    assert (found["starts"], found["gpu_hours"], found["cpu_hours"], found["max_memory_gib"]) == (1, 2, 4, 3)


def test_a_job_number_that_a_new_cluster_reuses_counts_once():
    assert [start.hours for start in parse_starts(SACCT)["11"]] == [1]


def test_all_stages_add_up():
    frame = table(
        [StageJobs("shard", ["14"], 0), StageJobs("encode", ["11"], 0), StageJobs("sample", ["13_4"], 0)],
        parse_starts(SACCT),
    )
    assert row(frame, "shard")["gpu_hours"] == 0 and row(frame, "shard")["cpu_hours"] == 0.2
    assert row(frame, "sample")["gpu_hours"] == pytest.approx(0.1)
    frame = table(
        [StageJobs("encode", ["11"], 0), StageJobs("sample", ["13_4"], 0)],
        {k: parse_starts(SACCT)[k] for k in ("11", "13_4")},
    )
    assert row(frame, "all")["gpu_hours"] == pytest.approx(2.1) and row(frame, "all")["jobs"] == 2


def test_a_job_that_made_several_stages_counts_once():
    stages = [StageJobs("sample", ["11", "14"], 0), StageJobs("measure", ["11"], 0)]
    frame = table(stages, {job: starts for job, starts in parse_starts(SACCT).items() if job in ("11", "14")})
    assert frame["stage"].tolist() == ["sample", "sample and measure", "all"]
    assert row(frame, "sample and measure")["gpu_hours"] == row(frame, "all")["gpu_hours"] == 2


def test_work_outside_slurm_and_unknown_jobs_are_gaps_not_zeros():
    stages = [StageJobs("shard", [], 2), StageJobs("encode", ["99"], 0), StageJobs("sample", ["13_4"], 3)]
    frame = table(stages, {"13_4": parse_starts(SACCT)["13_4"]})
    numbers = ["gpu_hours", "cpu_hours", "elapsed_hours", "max_memory_gib"]
    assert frame.set_index("stage").loc[["shard", "encode"], numbers].isna().all(axis=None)
    assert row(frame, "shard")["note"] == "2 made outside SLURM or deleted since"
    assert row(frame, "encode")["note"] == "sacct does not know job 99"
    assert row(frame, "sample")["note"] == "3 more made outside SLURM or deleted since"
    assert row(frame, "all")["note"] == "incomplete, see shard, encode, sample"
    assert "| –" in markdown(frame) and "nan" not in markdown(frame).lower() and "NA" not in markdown(frame)


def test_gpus_that_the_accounting_does_not_count_are_a_gap():
    found = row(table([StageJobs("sample", ["14"], 0)], {"14": parse_starts(SACCT)["14"]}), "sample")
    assert pd.isna(found["gpu_hours"]) and found["cpu_hours"] == 0.2
    assert found["note"] == "this cluster's accounting does not count GPUs"


def test_a_failing_sacct_leaves_gaps_with_its_reason(sacct):
    sacct("echo 'sacct: error: slurm_persist_conn_open: failed to open' >&2; exit 1")
    frame = account([StageJobs("train", ["12"], 0), StageJobs("shard", [], 1)])
    assert row(frame, "train")["note"] == ("sacct failed (error: slurm_persist_conn_open: failed to open)")
    assert pd.isna(row(frame, "all")["gpu_hours"])


def test_sacct_is_not_asked_about_work_outside_slurm(sacct, tmp_path):
    sacct(f"touch {tmp_path}/asked; exit 1")
    frame = account([StageJobs("train", [], 1)])
    assert row(frame, "train")["note"] == "1 made outside SLURM or deleted since"
    assert not (tmp_path / "asked").exists()


def test_jobs_are_read_from_shards_legs_and_single_files(tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    for k, environment in enumerate([{"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8"}, {}]):
        with monkeypatch.context() as patched:
            for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
                patched.delenv(name, raising=False)
            for name, value in {**environment, "SLURM_ARRAY_TASK_ID": "4"}.items():
                patched.setenv(name, value)
            tars.write_tar(folder / f"{k}-of-3.tar", [(f"{k}", {"cls": b"1"})])
    gather(folder, 3)
    assert jobs_of_stage("sample", [folder / "manifest.json"]) == StageJobs("sample", ["7", "8_4"], 1)

    legs = tmp_path / "legs.json"
    files.write_json(legs, {"legs": [{"code": "a", "job": "7"}, {"code": "a", "job": "12"}, {"code": "a"}]})
    assert jobs_of_stage("train", [legs]) == StageJobs("train", ["7", "12"], 1)
    (folder / "0-of-3.json").unlink()
    paths = [folder / "manifest.json", folder / "1-of-3.json", tmp_path / "gone" / "manifest.json"]
    assert jobs_of_stage("all", paths) == StageJobs("all", ["8_4"], 3)
