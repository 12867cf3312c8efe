"""The workflow on a real SLURM cluster: the jobs that it submits, and its behaviour after failures."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from helpers.places import REPOSITORY
from helpers.waiting import wait_until
from helpers.workflow import tiny_config, write_pictures

RESULT = "results/tiny_fid.csv"
SECONDS = 900


class Site:
    """A clone of the repository whose profile is adapted to the cluster."""

    def __init__(self, cluster, folder: Path):
        self.cluster, self.folder = cluster, folder

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--profile", "slurm", *arguments]

    def start(self, *arguments: str) -> subprocess.Popen:
        log = (self.folder / "head.log").open("a")
        environment = {name: value for name, value in self.cluster.environment.items() if name != "OMP_NUM_THREADS"}
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(self.folder)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run the command to its end and return its messages."""
        before = len(self.said())
        process = self.start(*arguments)
        try:
            ended = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        said = self.said()[before:]
        assert ended == status, said
        return said

    def said(self) -> str:
        path = self.folder / "head.log"
        return path.read_text() if path.exists() else ""

    def edit(self, name: str, change) -> None:
        path = self.folder / name
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def jobs(self) -> list[dict]:
        """Return all jobs that were submitted from this folder, from the accounting."""
        columns = ["JobID", "JobName", "State", "AllocTRES", "Comment", "WorkDir"]
        said = self.cluster.run(
            "sacct", "--allocations", "--noheader", "--parsable2", "--starttime=now-1day", "--allusers",
            f"--format={','.join(columns)}",
        )  # fmt: skip
        rows = [dict(zip(columns, line.split("|"), strict=True)) for line in said.splitlines()]
        return [row for row in rows if row["WorkDir"] == str(self.folder)]

    def stages(self, after: int = 0) -> Counter:
        """Count the jobs of each rule, without the first ``after`` jobs."""
        jobs = self.jobs()[after:]
        return Counter("train" if job["JobName"].startswith("diffit-") else _rule(job["Comment"]) for job in jobs)

    def queue(self) -> list[str]:
        said = self.cluster.run("squeue", "--noheader", "--format=%A|%T|%Z")
        return [line for line in said.splitlines() if line.endswith(f"|{self.folder}")]


def _rule(comment: str) -> str:
    return re.match(r"rule_(\w+?)(_wildcards_.*)?$", comment)[1]


@pytest.fixture(scope="session")
def clone(cluster, inception, tmp_path_factory) -> Site:
    """A new clone with a small configuration and the profile of the cluster."""
    folder = tmp_path_factory.mktemp("cluster") / "clone"
    names = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        if name.startswith(("diffit/", "workflow/", "profiles/", "Snakefile", "slurm")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name, follow_symlinks=False)
    pictures = folder / "pictures"
    write_pictures(pictures)
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(pictures, inception), sort_keys=False))
    profile = folder / "profiles/slurm/config.yaml"
    text = profile.read_text()
    for old, new in [
        ("&partition gpu", "&partition batch"),
        ("gpu: 8 ", "gpu: 2 "),
        ("cpus_per_task: 8 ", "cpus_per_task: 1 "),
        ("mem_mb: 400000", "mem_mb: 4000"),
        ("--workers 6", "--workers 0"),
        ("checks: 20", "checks: 3"),
        ("latency-wait: 60", "latency-wait: 10"),
    ]:
        assert text.count(old) == 1, f"{old} is not in the profile"
        text = text.replace(old, new)
    profile.write_text(text)
    return Site(cluster, folder)


@pytest.fixture(scope="session")
def done(clone) -> Site:
    """The clone after one run of the documented command."""
    clone.run(RESULT)
    return clone


@pytest.fixture
def fork(done, tmp_path) -> Site:
    """A copy of the clone with its results, for changes."""
    shutil.copytree(done.folder, tmp_path / "clone", symlinks=True)
    site = Site(done.cluster, tmp_path / "clone")
    yield site
    for line in site.queue():
        site.cluster.run("scancel", line.split("|")[0])


def shards(count: int):
    """Return an edit of the configuration: another sampler with this number of shards."""

    def change(config: dict) -> None:
        config["samplers"]["short"] |= {"images": 8 * count, "shards": count, "steps": 3}

    return change


def test_the_documented_command_makes_the_table_with_jobs_for_each_stage(done):
    rows = list(csv.DictReader((done.folder / RESULT).open()))
    assert float(next(row["value"] for row in rows if row["metric"] == "fid")) > 0
    assert done.stages() == {
        "shard": 2, "train": 1, "sample": 2, "measure": 4, "reference": 1, "score": 1, "tabulate": 1,
    }  # fmt: skip
    assert {job["State"] for job in done.jobs()} == {"COMPLETED"}
    gpus = {name: set() for name in done.stages()}
    for job in done.jobs():
        name = "train" if job["JobName"].startswith("diffit-tiny") else _rule(job["Comment"])
        gpus[name].add(int(("gres/gpu=0," + job["AllocTRES"]).rpartition("gres/gpu=")[2].split(",")[0]))
    assert gpus == {
        "shard": {0}, "train": {2}, "sample": {1}, "measure": {1}, "reference": {0}, "score": {0}, "tabulate": {0},
    }  # fmt: skip
    assert not done.queue()


def test_the_result_has_a_table_of_costs(done):
    rows = {row["stage"]: row for row in csv.DictReader((done.folder / "results/tiny_cost.csv").open())}
    assert {"train", "sample", "measure"} <= rows.keys()
    for stage in ("train", "sample", "measure"):
        assert float(rows[stage]["gpu_hours"]) > 0, rows[stage]


def test_nothing_is_submitted_if_nothing_changed(done):
    before = len(done.jobs())
    assert "Nothing to be done" in done.run(RESULT)
    assert len(done.jobs()) == before


@pytest.mark.extended
def test_an_edit_of_the_sampler_submits_its_dependents_also_with_more_shards_than_jobs(fork):
    fork.edit("config.yaml", shards(5))
    fork.run("--jobs", "2", RESULT)
    assert fork.stages() == {"sample": 5, "measure": 5, "score": 1, "tabulate": 1}
    manifest = json.loads((fork.folder / "results/samples/tiny/1/short/manifest.json").read_text())
    assert manifest["count"] == 40 and not fork.queue()


@pytest.mark.extended
def test_shards_can_be_submitted_as_an_array(fork):
    fork.edit("config.yaml", shards(3))
    fork.run("--slurm-array-jobs=sample,measure", RESULT)
    (array,) = {job["JobID"].partition("_")[0] for job in fork.jobs() if _rule(job["Comment"]) == "sample"}
    assert {job["JobID"] for job in fork.jobs() if job["JobID"].startswith(f"{array}_")} == {
        f"{array}_{task}" for task in (1, 2, 3)
    }
    assert fork.stages() == {"sample": 3, "measure": 3, "score": 1, "tabulate": 1}


def test_arrays_that_would_wait_forever_are_refused_in_one_line(fork):
    fork.edit("config.yaml", shards(5))
    said = fork.run("--jobs", "2", "--slurm-array-jobs=sample", RESULT, status=1)
    assert "error: --slurm-array-jobs with 5 jobs of sample and --jobs 2 would wait forever" in said
    assert not fork.jobs()


@pytest.mark.extended
def test_jobs_of_a_killed_snakemake_are_cancelled_by_the_next_one(fork):
    fork.edit("config.yaml", shards(4))
    head = fork.start(RESULT)
    wait_until(lambda: len([line for line in fork.queue() if "|RUNNING|" in line]) >= 2, "two shards sampled at a time")
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    orphans = {line.split("|")[0] for line in fork.queue()}
    assert len(orphans) >= 2
    subprocess.run(fork.command("--unlock"), cwd=fork.folder, env={**fork.cluster.environment}, check=True)
    fork.run(RESULT)
    states = {job["JobID"]: job["State"].split()[0] for job in fork.jobs()}
    assert {states[job] for job in orphans} <= {"CANCELLED", "COMPLETED"}
    again = Counter(_rule(job["Comment"]) for job in fork.jobs() if job["JobID"] not in orphans)
    # A shard that was finished before it could be cancelled may be kept.
    assert sum(states[job] == "CANCELLED" for job in orphans) <= again.pop("sample") <= 4
    assert again == {"measure": 4, "score": 1, "tabulate": 1}
    assert {states[job] for job in states.keys() - orphans} == {"COMPLETED"}
    assert json.loads((fork.folder / "results/samples/tiny/1/short/manifest.json").read_text())["count"] == 32
    assert not fork.queue()


@pytest.mark.extended
def test_controller_and_accounting_may_be_unavailable_for_a_while(fork):
    fork.edit("config.yaml", shards(2))
    head = fork.start(RESULT)
    wait_until(fork.queue, "a job in the queue")
    fork.cluster.stop_slurmctld()
    fork.cluster.stop_slurmdbd()
    time.sleep(15)
    fork.cluster.start_slurmdbd()
    fork.cluster.start_slurmctld()
    assert head.wait(600) == 0, fork.said()
    assert json.loads((fork.folder / "results/samples/tiny/1/short/manifest.json").read_text())["count"] == 16
    assert not fork.queue()


def test_gpus_that_no_node_has_give_one_clear_error(fork):
    fork.edit("config.yaml", shards(2))
    fork.edit("profiles/slurm/config.yaml", lambda profile: profile["set-resources"]["sample"].update(gpu=99))
    said = fork.run("--retries", "0", RESULT, status=1)
    assert "Requested node configuration is not available" in said
    assert not fork.queue()
    # The accounting may record refused jobs as failed.
    assert {job["State"] for job in fork.jobs()} <= {"FAILED"}


def test_a_dry_run_of_all_results_works_with_the_profile(tmp_path):
    """Dry run with the real configuration and profile. Its duration is printed only."""
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", "slurm", "--dry-run", "--printshellcmds",
         "--directory", str(tmp_path), "--configfile", "config.yaml"],
        cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    print(f"{time.monotonic() - began:.1f} s for a dry run of all results")
    assert ended.returncode == 0, ended.stderr
    (training,) = re.findall(r".*diffit.train .* results/runs/imagenet256 --kimg 1792000 .*", ended.stdout)
    for words in ("--launcher=slurm", "--slurm-partition=gpu", "--slurm-account=project", "--gpu=8", "--mem-mb=400000"):
        assert words in training
