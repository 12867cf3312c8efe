"""Preflight on a real cluster: SLURM's output is parsed, and a test job examines a node."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers.places import REPOSITORY

from diffit.planning.checks import cluster, probe_job, slurm_site
from diffit.planning.checks.packages import installed_lock
from diffit.planning.checks.slurm_site import JobRequest, Site

pytestmark = pytest.mark.usefixtures("slurm_commands")


@pytest.fixture
def site(slurm_commands) -> Site:
    return slurm_site.read()


@pytest.fixture
def request_here(site) -> JobRequest:
    """A request for one GPU that the cluster can fulfil."""
    account = next((each.account for each in site.associations if not each.partition), "")
    return JobRequest(site.partition("")["PartitionName"], account, 1, 1, "", 5)


def levels(findings) -> list[str]:
    return [finding.level for finding in findings]


def test_the_output_of_slurm_is_parsed(site, request_here):
    assert request_here.partition in site.partitions and site.partition("") == site.partitions[request_here.partition]
    nodes = [node for node in site.nodes if node.partition == request_here.partition]
    assert len(nodes) == 2 and all(node.usable and node.count("") > 0 for node in nodes)
    assert site.settings["PreemptType"] == "preempt/partition_prio" and site.associations
    found = cluster.check_commands() + cluster.check_accounting(site) + cluster.check_requeue(site)
    found += cluster.check_partition(site, request_here) + cluster.check_account(site, request_here)
    found += cluster.check_gpus(site, request_here) + cluster.check_submission(request_here)
    assert set(levels(found)) == {"ok"}, "\n".join(map(str, found))


@pytest.mark.parametrize(
    "change, check",
    [
        ({"partition": "nowhere"}, cluster.check_partition),
        ({"account": "nobodys"}, cluster.check_account),
        ({"gpus": 99}, cluster.check_gpus),
        ({"gpu_type": "abacus"}, cluster.check_gpus),
        ({"nodes": 3}, cluster.check_gpus),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_slurm_refuses_requests_that_the_checks_call_wrong(site, request_here, change, check):
    asked = replace(request_here, **change)
    assert levels(check(site, asked)) == ["wrong"]
    assert levels(cluster.check_submission(asked)) == ["wrong"]


def test_a_drained_node_is_not_counted(site, request_here):
    node = site.nodes[0].name
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=drain", "reason=test"], check=True)
    try:
        drained = slurm_site.read()
    finally:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=True)
    assert not any(those.usable for those in drained.nodes if those.name == node)
    assert levels(cluster.check_gpus(drained, replace(request_here, nodes=2))) == ["warning"]


# ----------------------------------------------------------------------------------------------------- the test job


def queue() -> str:
    called = ["squeue", "--noheader", "--name=diffit-preflight", "--states=pending,running"]
    return subprocess.run(called, capture_output=True, text=True, check=True).stdout


def test_the_test_job_reads_and_writes_the_results_folder(request_here, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    shared, gpu = probe_job.check(request_here, tmp_path / "results", 60)
    assert shared.level == "ok" and "reads and writes" in shared.what, str(shared)
    assert gpu.level == "warning" and "torch sees no GPU" in gpu.what  # its GPU is another device file
    assert not list((tmp_path / "results").iterdir()) and not queue()


@pytest.mark.parametrize(
    "setup, words",
    [("exit 0", "left nothing"), ("echo no module cuda >&2; exit 3", "failed on its node: no module cuda")],
)
def test_a_node_that_cannot_run_the_test_job_is_wrong(request_here, tmp_path, monkeypatch, setup, words):
    monkeypatch.chdir(REPOSITORY)
    (found,) = probe_job.check(replace(request_here, setup=setup), tmp_path, 60)
    assert found.level == "wrong" and words in found.what
    assert not list(tmp_path.iterdir())


def test_the_wait_for_a_node_is_limited(request_here, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    partition = request_here.partition
    subprocess.run(["scontrol", "update", f"partitionname={partition}", "state=down"], check=True)
    try:
        (found,) = probe_job.check(request_here, tmp_path, 2)
    finally:
        subprocess.run(["scontrol", "update", f"partitionname={partition}", "state=up"], check=True)
    assert found.level == "warning" and "gave no node within 2 s" in found.what
    assert not list(tmp_path.iterdir()) and not queue()


# ------------------------------------------------------------------------------------------------------ the command


def write_profile(folder: Path, asked: JobRequest) -> Path:
    place = {"slurm_partition": asked.partition, "slurm_account": asked.account}
    profile = {
        "executor": "slurm",
        "jobs": 10,
        "default-resources": {
            **place, "runtime": 5, "mem_mb": 100,
        },
        "set-resources": {
            "sample": {"gres": "'gpu:1'"},
            "train": {"launcher": "slurm", **place, "gpu": 4, "runtime": 60},
        },
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return folder


def preflight(folder: Path, profile: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "diffit.planning.preflight", "results/digits_fid.csv", "--profile", str(profile)]
    command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder), *options]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_the_command_reports_all_checks_and_fails_if_something_is_wrong(request_here, tmp_path):
    (tmp_path / "work").mkdir()
    shutil.copy(REPOSITORY / "config.yaml", tmp_path / "work")
    ended = preflight(tmp_path / "work", write_profile(tmp_path / "right", request_here))
    unfit = int(installed_lock() != "gpu")  # the jobs request GPUs, which this environment may lack the libraries for
    assert ended.returncode == unfit and f"{unfit} wrong." in ended.stdout, ended.stdout + ended.stderr
    for words in (
        "reads and writes",
        "the account",
        "with 4 GPUs",
        "SLURM accepts",
        "are free under",
        "digits comes",
    ):
        assert f"{words}" in ended.stdout
    asked = replace(request_here, account="nobodys")
    ended = preflight(tmp_path / "work", write_profile(tmp_path / "mistaken", asked), "--no-probe")
    assert ended.returncode == 1 and "has no account 'nobodys'" in ended.stdout
