"""The checks of preflight: problems of a cluster, a disk or a download are found, each with a remedy."""

import math
from types import SimpleNamespace

import pytest
from helpers.server import Server

from diffit.planning import preflight
from diffit.planning.checks import cluster, downloads, driver, packages, probe_job, scores, slurm_site
from diffit.planning.checks.result import ok, summary, warning, wrong
from diffit.planning.checks.slurm_site import Association, JobRequest, Node, Site, gpus_of, minutes, requests
from diffit.planning.dry_run import Job, Workflow
from diffit.scoring import inception_weights
from diffit.slurm.commands import SlurmError

LOW = {
    "PartitionName": "low", "AllowGroups": "ALL", "AllowAccounts": "ALL", "Default": "YES", "DefaultTime": "NONE",
    "GraceTime": "5", "MaxTime": "04:00:00", "PreemptMode": "REQUEUE", "State": "UP",
}  # fmt: skip


def site(accounting=True, settings=None, groups=("users",), **partition: str) -> Site:
    described = {"PreemptType": "preempt/partition_prio", "AccountingStorageTRES": "cpu,gres/gpu", "JobRequeue": "1"}
    nodes = [Node(f"n{k}", "low", k < 3, {"a100": 8} if k else {}) for k in range(4)]  # n0 has no GPUs, n3 is down
    mine = [Association("lab", "", "lab"), Association("guests", "high", "lab")]
    partitions = {"low": {**LOW, **partition}, "high": {**LOW, "PartitionName": "high", "Default": "NO"}}
    return Site({**described, **(settings or {})}, partitions, nodes, mine if accounting else None, "me", list(groups))


def request(**changes) -> JobRequest:
    given = {"partition": "low", "account": "lab", "nodes": 1, "gpus": 1, "gpu_type": "", "minutes": 60}
    return JobRequest(**{**given, **changes})


def levels(findings) -> list[str]:
    return [finding.level for finding in findings]


# ---------------------------------------------------------------------------------------------------- the requests


def test_jobs_of_the_plugin_and_trainings_are_read_as_requests():
    common = {"slurm_partition": "low", "slurm_account": "lab", "mem_mb": 1000}
    train = {
        "launcher": "slurm", "slurm_partition": "high", "nodes": 2, "gpu": 8, "cpus_per_task": 4, "mem_mb": 100_000,
        "runtime": 1440, "slurm_extra": "--qos=long constraint='a100&ib' mail_type=END --exclusive",
        "setup": "module load cuda",
    }  # fmt: skip
    jobs = [
        Job("shard", {}, {**common, "runtime": 30}),
        Job("score", {}, {**common, "runtime": 30}),
        Job("sample", {}, {**common, "runtime": 60, "gres": "gpu:a100:1"}),
        Job("measure", {}, {**common, "runtime": 60, "gpu": 2}),
        Job("train", {"run": "a"}, {**common, **train}),
        Job("train", {"run": "b"}, {**common, "launcher": "local"}),
    ]
    found = requests(jobs)
    assert list(found.values()) == [["shard", "score"], ["sample"], ["measure"], ["train"]]
    of_stage, of_sample, of_measure, of_training = found
    assert of_stage.options() == ["--partition=low", "--account=lab", "--nodes=1", "--time=30", "--mem=1000"]
    assert "--gres=gpu:a100:1" in of_sample.options() and "--gres=gpu:2" in of_measure.options()
    assert of_training.options() == [
        "--partition=high", "--account=lab", "--nodes=2", "--gres=gpu:8", "--time=1440", "--ntasks-per-node=8",
        "--cpus-per-task=4", "--mem=100000", "--qos=long", "--constraint=a100&ib", "--mail-type=END", "--exclusive",
    ]  # fmt: skip
    assert of_training.trains and of_training.setup == "module load cuda"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("gpu:a100:8(S:0-1)", {"a100": 8}),
        ("gpu:8", {"": 8}),
        ("gpu", {"": 1}),
        ("nvme:1,gpu:a100:4(IDX:0,3),gpu:v100:2", {"a100": 4, "v100": 2}),
        ("(null)", {}),
        ("", {}),
    ],
)
def test_gpus_are_read_from_generic_resources(text, expected):
    assert gpus_of(text) == expected


def test_time_limits_are_read():
    assert [minutes(text) for text in ("04:00:00", "1-12:00:30", "UNLIMITED", "NONE")] == [
        240,
        2160.5,
        math.inf,
        math.inf,
    ]


def test_nodes_that_are_down_or_do_not_answer_are_not_usable():
    states = ["idle", "mixed", "idle~", "allocated", "idle*", "down", "drained", "draining", "down*", "fail"]
    usable = [slurm_site._node(f"n1|low|{state}|gpu:2").usable for state in states]
    assert usable == [True] * 4 + [False] * 6


# --------------------------------------------------------------------------------------------------- the checks


def test_a_cluster_that_fits_passes_all_checks():
    here, asked = site(), request(gpus=8, nodes=2)
    found = cluster.check_accounting(here) + cluster.check_requeue(here)
    found += cluster.check_partition(here, asked) + cluster.check_account(here, asked)
    found += cluster.check_gpus(here, asked) + cluster.check_time(here, asked, 1, ["sample"])
    found += cluster.check_preemption(here, asked)
    assert set(levels(found)) == {"ok"} and len(found) == 7


def test_partitions_that_are_absent_down_or_closed_are_wrong():
    (found,) = cluster.check_partition(site(), request(partition="lwo"))
    assert found == wrong(
        "there is no partition 'lwo'",
        "correct slurm_partition in profiles/slurm/config.yaml; partitions are: low, high",
    )
    assert "is DRAIN" in cluster.check_partition(site(State="DRAIN"), request())[0].what
    for closed in ({"AllowAccounts": "theirs"}, {"DenyAccounts": "x,lab"}, {"AllowGroups": "staff"}):
        assert levels(cluster.check_partition(site(**closed), request())) == ["wrong"]
    assert levels(cluster.check_partition(site(AllowGroups="staff,users"), request())) == ["ok"]
    assert levels(cluster.check_partition(site(Default="NO"), request(partition=""))) == ["wrong"]
    assert levels(cluster.check_partition(site(), request(partition=""))) == ["ok"]


def test_accounts_of_others_or_of_another_partition_are_wrong():
    (found,) = cluster.check_account(site(), request(account="lba"))
    assert found.level == "wrong" and "me has no account 'lba'" in found.what and "guests, lab" in found.remedy
    (found,) = cluster.check_account(site(), request(account="guests"))
    assert found.level == "wrong" and "only in partition high, not in low" in found.what
    assert "your default account, lab" in cluster.check_account(site(), request(account=""))[0].what
    assert cluster.check_account(site(accounting=False), request()) == []
    assert levels(cluster.check_accounting(site(accounting=False))) == ["warning"]
    assert "does not record GPUs" in cluster.check_accounting(site(settings={"AccountingStorageTRES": "cpu"}))[0].what


def test_missing_gpus_are_wrong_and_nodes_that_are_down_only_delay():
    (found,) = cluster.check_gpus(site(), request(gpus=9))
    assert found.level == "wrong" and "0 of the 4 nodes" in found.what
    assert "8 a100 GPUs or no GPU" in found.remedy
    assert levels(cluster.check_gpus(site(), request(gpu_type="h100"))) == ["wrong"]
    assert levels(cluster.check_gpus(site(), request(gpus=8, nodes=4))) == ["wrong"]
    assert levels(cluster.check_gpus(site(), request(gpus=8, nodes=3))) == ["warning"]
    assert levels(cluster.check_gpus(site(), request(gpus=8, gpu_type="a100", nodes=2))) == ["ok"]


def test_a_runtime_above_the_limit_is_wrong_and_a_short_one_requeues_only_a_training():
    (found,) = cluster.check_time(site(), request(minutes=24 * 60, trains=True), 0, ["train"])
    assert found.level == "wrong" and "1 d requested, but partition low allows at most 4 h" in found.what
    (found,) = cluster.check_time(site(), request(minutes=240, trains=True), 40, ["train"])
    assert found.level == "ok" and "requeued about 9 times" in found.what
    (found,) = cluster.check_time(site(), request(minutes=60), 1.5, ["sample"])
    assert found.level == "warning" and "estimated at 1 h 30 min and its time limit is 1 h" in found.what
    assert levels(cluster.check_time(site(), request(minutes=60), math.nan, ["sample"])) == ["ok"]


@pytest.mark.parametrize(
    "settings, partition, level, words",
    [
        ({"PreemptType": "preempt/none"}, {}, "ok", "not preempted"),
        ({}, {"PreemptMode": "OFF"}, "ok", "not preempted"),
        ({}, {"PreemptMode": "REQUEUE"}, "ok", "requeued after 5 s"),
        ({}, {"PreemptMode": "CANCEL"}, "warning", "waits for them forever"),
        ({}, {"PreemptMode": "GANG,SUSPEND"}, "warning", "suspended"),
        ({"PreemptType": "preempt/qos"}, {}, "warning", "QOS"),
    ],
)
def test_the_effect_of_preemption_is_reported(settings, partition, level, words):
    (found,) = cluster.check_preemption(site(settings=settings, **partition), request())
    assert found.level == level and words in found.what


def test_missing_commands_of_slurm_are_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = cluster.check_commands()
    assert found.level == "wrong" and "are missing: sbatch, srun" in found.what
    with pytest.raises(SlurmError, match="scontrol"):
        slurm_site.read()


# ------------------------------------------------------------------------------------ packages, disk, downloads


def test_packages_that_are_missing_or_of_another_version_are_named(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("# a comment\nno-such-package==1.0\nnumpy==0.1\n")
    assert [(found.level, found.what.split()[0]) for found in packages.check_packages(lock)] == [
        ("wrong", "the"),
        ("warning", "package"),
    ]
    assert levels(packages.check_packages()) == ["ok"]


def test_locks_are_read_with_those_that_they_include(tmp_path):
    (tmp_path / "all.lock").write_text("# -r nothing==1\n-r some.lock\nthree==3.0\n")
    (tmp_path / "some.lock").write_text("one==1.0\ntwo==2.0\n")
    assert packages.locked(tmp_path / "all.lock") == {"one": "1.0", "two": "2.0", "three": "3.0"}


def test_jobs_with_gpus_need_an_installation_with_their_libraries():
    (found,) = packages.check_gpu_libraries([request(gpus=0), request()], "cpu")
    assert found.level == "wrong" and "requirements-cpu.lock" in found.what and "LOCK=gpu" in found.remedy
    assert (
        packages.check_gpu_libraries([request()], "gpu") == packages.check_gpu_libraries([request(gpus=0)], "cpu") == []
    )


@pytest.mark.parametrize("version, level", [("580.65.06", ["ok"]), ("1000.1", ["ok"]), ("579.99", ["wrong"]), ("", [])])
def test_a_driver_that_is_too_old_for_cuda_is_wrong(version, level):
    found = driver.check(version, "node7")
    assert levels(found) == level and all("node7" in each.what and version in each.what for each in found)


@pytest.mark.parametrize(
    "answer, level, words",
    [
        ({"driver": "550.54.15", "gpus": 0}, ["wrong"], "the NVIDIA driver of n1 is 550.54.15; CUDA 13 needs 580"),
        ({"driver": "580.65.06", "gpus": 0}, ["ok", "warning"], "torch sees no GPU"),
        ({"driver": "580.65.06", "gpus": 1}, ["ok", "ok"], "torch sees 1 × A100"),
        ({"driver": "", "gpus": 0}, ["warning"], "torch sees no GPU"),
    ],
)
def test_a_test_job_reports_the_driver_of_its_node(tmp_path, answer, level, words):
    job = probe_job.TestJob(request(), tmp_path, "", "1")
    found = probe_job._check_gpus(job, {"host": "n1", "gpu": "A100", **answer})
    assert levels(found) == level and words in found[-1].what


@pytest.mark.parametrize("script, version", [("echo 570.1; echo 570.1", "570.1"), ("echo broken; exit 9", "")])
def test_the_version_of_the_driver_comes_from_nvidia_smi(monkeypatch, tmp_path, script, version):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver.read() == ""
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert driver.read() == version


def test_a_disk_that_is_too_small_is_wrong(small_disk):
    disk = small_disk("1m")
    assert levels(preflight.check_disk(disk / "results", [1e5, 2e5])) == ["ok"]
    assert levels(preflight.check_disk(disk / "results", [1e6, 2e5])) == ["wrong"]
    (found,) = preflight.check_disk(disk / "results", [1e5, math.nan])
    assert found.level == "warning" and "at least 100 kB" in found.what


def test_local_disks_and_shared_file_systems_are_distinguished(tmp_path):
    (tmp_path / "a b").mkdir()
    mounts = f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/a\\040b lustre rw 0 0\n"
    assert levels(preflight.check_file_system(tmp_path / "a b/results", mounts)) == ["ok"]
    assert levels(preflight.check_file_system(tmp_path / "results", mounts)) == ["warning"]


def test_missing_downloads_are_checked(tmp_path):
    sources = {
        "here": {"source": "folder", "path": str(tmp_path)},
        "gone": {"source": "folder", "path": str(tmp_path / "gone")},
        "digits": {"source": "digits", "path": None},
        "nowhere": {"source": "folder", "path": None},
    }
    vaes = {"local": {"kind": "published", "path": str(tmp_path), "repository": "a/b", "revision": None}}
    jobs = [Job("download", {"dataset": name}) for name in sources] + [Job("vae", {"vae": name}) for name in vaes]
    found = downloads.check([*jobs, Job("shard", {"dataset": "here"})], {"datasets": sources, "vaes": vaes})
    assert levels(found) == ["ok", "wrong", "ok", "wrong", "ok"]
    assert "datasets.gone.path" in found[1].remedy
    assert levels(downloads.check([], {})) == ["ok"]


def test_addresses_are_checked_where_they_are_downloaded_from(monkeypatch):
    sources = {"cifar": {"source": "cifar10", "path": None}, "adm": {"source": "adm", "path": None, "resolution": 256}}
    network = {"path": None, "sha256": None, "url": inception_weights.NVIDIA_URL}
    jobs = [Job("download", {"dataset": name}) for name in sources] + [Job("download_inception", {})]
    with Server() as server:
        monkeypatch.setenv("DIFFIT_MIRROR", server.address)
        server.file("/www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", b"x")
        found = downloads.check(jobs, {"datasets": sources, "inception": network})
        assert levels(found) == ["ok", "wrong", "wrong"] and found[0].what.endswith("cifar-10-python.tar.gz")
        assert {method for method, *_ in server.requests} == {"HEAD"}
    assert "256_labeled.npz: the server answers 404 Not Found" in found[1].what
    assert "datasets.adm.path" in found[1].remedy and "inception.path" in found[2].remedy


def test_a_missing_inception_score_is_announced_with_the_key_and_the_file(tmp_path):
    jobs = [Job("measure", {"protocol": "adm"}), Job("measure", {"protocol": "clean"}), Job("sample", {})]
    wheel = {"path": None, "sha256": None}
    (found,) = scores.check(jobs, {"inception": wheel})
    assert found.level == "warning" and "the Inception Score will be missing under adm" in found.what
    assert f"set inception.url to {inception_weights.NVIDIA_URL}, or inception.path" in found.remedy
    assert scores.check(jobs[1:], {"inception": wheel}) == []
    assert scores.check(jobs, {"inception": {**wheel, "url": inception_weights.NVIDIA_URL}}) == []
    (tmp_path / "mine.pt").write_bytes(b"another network")
    assert scores.check(jobs, {"inception": {**wheel, "path": str(tmp_path / "mine.pt")}}) == []
    assert scores.check(jobs, {"inception": {**wheel, "path": str(tmp_path / "none.pt")}}) == []


def test_a_copy_of_the_wheels_network_is_known_by_its_hash(inception):
    described = {"path": str(inception / "inception.pt"), "sha256": None}
    assert levels(scores.check([Job("score", {"protocol": "adm"})], {"inception": described})) == ["warning"]


def test_preflight_announces_a_missing_inception_score(tmp_path, monkeypatch):
    config = {"inception": {"path": None, "sha256": None}}
    monkeypatch.setattr(preflight, "check_cluster", lambda *_: [])
    monkeypatch.setattr(preflight, "Costs", lambda *_: SimpleNamespace(of=lambda *_: []))
    found = preflight.check(Workflow([Job("score", {"protocol": "adm"})], config, tmp_path), {}, None)
    assert "the Inception Score will be missing" in found[-1].what


def test_an_unreachable_hub_is_reported_with_the_key_for_a_local_copy(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    vae = {"kind": "published", "path": None, "repository": "stabilityai/sd-vae-ft-ema", "revision": None}
    (found,) = downloads.check([Job("vae", {"vae": "ema"})], {"vaes": {"ema": vae}})
    assert found.level == "wrong" and "vaes.ema.path" in found.remedy


def test_a_result_is_printed_as_a_sentence_with_its_remedy():
    assert str(ok("fine")) == "ok       fine"
    assert str(wrong("bad", "mend it")) == "wrong    bad\n         → mend it"
    assert summary([ok("a"), ok("b"), warning("c", "d")]) == "2 ok, 1 warning, 0 wrong"
