"""Launchers: their registry, and the place and the resources of a SLURM job."""

from argparse import ArgumentParser, Namespace

import pytest

from diffit.launch import launcher, slurm_job, slurm_launcher
from diffit.launch.launcher import LAUNCHERS, Launcher
from diffit.launch.slurm_job import JobResources
from diffit.launch.slurm_launcher import rendezvous_port
from diffit.training.ranks import LAUNCHER, Place

RESOURCES = {
    "slurm_partition": "", "slurm_account": "", "nodes": 1, "gpu": 0, "cpus_per_task": 0, "mem_mb": 0, "runtime": 60,
    "slurm_extra": "", "setup": "",
}  # fmt: skip


def arguments(*options: str) -> Namespace:
    parser = ArgumentParser()
    launcher.add_arguments(parser)
    return parser.parse_args(options)


def test_the_command_runs_the_chosen_launcher_and_its_ranks_run_as_ranks(monkeypatch):
    calls = []
    other = Launcher(
        "other",
        add_arguments=lambda parser: parser.add_argument("--queue"),
        launch=lambda task, train, given: calls.append(("launch", task, given.queue)),
        train_rank=lambda task, train: calls.append(("train_rank", task)),
    )
    with LAUNCHERS.extended(other):
        launcher.launch("task", None, arguments("--launcher", "other", "--queue", "long"))
        monkeypatch.setenv(LAUNCHER, "other")
        launcher.launch("task", None, arguments("--launcher", "local"))
    assert calls == [("launch", "task", "long"), ("train_rank", "task")]


def test_the_place_of_a_rank_is_that_of_srun(monkeypatch):
    variables = {
        "SLURM_JOB_ID": "41", "SLURM_PROCID": "11", "SLURM_NTASKS": "16", "SLURM_LOCALID": "3",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1", "SLURM_RESTART_COUNT": "2",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert slurm_launcher._place() == Place(11, 16, 3, "10.0.0.1", rendezvous_port(41, 2), may_hide_gpus=True)


def test_neighbouring_jobs_and_their_requeues_meet_at_different_ports():
    ports = [rendezvous_port(job, start) for job in range(99_000, 99_600) for start in range(31)]
    assert len(set(ports)) == len(ports)
    assert min(ports) > 1024 and max(ports) < 32768  # Linux assigns the ports above by itself


def test_resources_become_parameters_of_sbatch():
    given = {
        "slurm_partition": "high", "slurm_account": "lab", "nodes": 2, "gpu": 8, "cpus_per_task": 4, "mem_mb": 100_000,
        "slurm_extra": "--qos=long --mail-type=END exclusive",
    }  # fmt: skip
    resources = JobResources(**{**RESOURCES, **given})
    assert resources.ranks == 16
    assert slurm_job._sbatch_parameters(resources) == {
        "partition": "high", "account": "lab", "nodes": 2, "ntasks_per_node": 8, "gpus_per_node": 8,
        "cpus_per_task": 4, "mem": "100000M", "time": 60,
        "srun_args": ["--kill-on-bad-exit=1", "--open-mode=append", "--cpus-per-task=4"],
        "additional_parameters": {"requeue": True, "qos": "long", "mail_type": "END", "exclusive": True},
    }  # fmt: skip


def test_empty_resources_are_left_to_the_cluster():
    parameters = slurm_job._sbatch_parameters(JobResources(**RESOURCES))
    left_out = ("partition", "account", "gpus_per_node", "cpus_per_task", "mem")
    assert all(parameters[name] is None for name in left_out) and parameters["ntasks_per_node"] == 1


@pytest.mark.parametrize("options", [("--runtime", "0"), ("--nodes", "0"), ("--gpu", "-1"), ("--launcher", "nosuch")])
def test_invalid_options_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        arguments(*options)
    assert options[0] in capsys.readouterr().err
