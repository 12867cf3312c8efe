"""The requests that the jobs of a profile make to SLURM, and the cluster as SLURM's commands describe it."""

import grp
import math
import os
import pwd
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diffit.planning.dry_run import Job
from diffit.slurm.commands import SlurmError, ask

USABLE = ("idle", "mixed", "allocated", "completing", "planned", "reserved")


# ---------------------------------------------------------------------------------------------------- the requests


@dataclass(frozen=True)
class JobRequest:
    """What a job requests from SLURM.

    Attributes:
        partition: partition; empty for the cluster's default.
        account: account; empty for the user's default.
        nodes: number of nodes.
        gpus: GPUs per node.
        gpu_type: type of the GPUs; empty for any.
        minutes: time limit; 0 for the partition's default.
        extra: further options of sbatch.
        setup: shell line that runs before the ranks of a training start.
        trains: whether the job is a training, which is requeued after its time limit.
    """

    partition: str
    account: str
    nodes: int
    gpus: int
    gpu_type: str
    minutes: float
    extra: tuple[str, ...] = ()
    setup: str = ""
    trains: bool = False

    @property
    def place(self) -> str:
        """The partition in words."""
        return f"partition {self.partition}" if self.partition else "the default partition"

    def options(self) -> list[str]:
        """Return the request as options of sbatch. Empty values are left to the cluster."""
        gpus = f"gpu:{self.gpu_type}:{self.gpus}" if self.gpu_type else f"gpu:{self.gpus}"
        given = {
            "partition": self.partition,
            "account": self.account,
            "nodes": self.nodes,
            "gres": gpus if self.gpus else "",
            "time": math.ceil(self.minutes) if self.minutes else "",
        }
        return [f"--{name}={value}" for name, value in given.items() if value] + list(self.extra)


def requests(jobs: Iterable[Job]) -> dict[JobRequest, list[str]]:
    """Return the distinct requests of jobs, each with its rules. A training on this machine requests nothing."""
    found: dict[JobRequest, list[str]] = {}
    for job in jobs:
        is_training = "launcher" in job.resources
        if is_training and job.resources["launcher"] != "slurm":
            continue
        request = (_of_training if is_training else _of_stage)(job.resources)
        rules = found.setdefault(request, [])
        if job.rule not in rules:
            rules.append(job.rule)
    return found


def _of_training(given: Mapping) -> JobRequest:
    """Return the request of rule train (workflow/rules/train.smk), which runs one rank per GPU."""
    gpus = int(given.get("gpu", 0))
    further = (option.lstrip("-").partition("=") for option in shlex.split(str(given.get("slurm_extra", ""))))
    extra = [f"--ntasks-per-node={max(1, gpus)}", *_options(given, ("cpus_per_task", "mem_mb"))]
    extra += [f"--{name.replace('_', '-')}{equals}{value}" for name, equals, value in further]
    return JobRequest(*_place(given), gpus, "", float(given["runtime"]), tuple(extra), str(given["setup"]), trains=True)


def _of_stage(given: Mapping) -> JobRequest:
    """Return the request that Snakemake's plugin for SLURM makes from the resources of a rule."""
    gpu_type, gpus = next(iter(gpus_of(str(given.get("gres", ""))).items()), ("", 0))
    if given.get("gpu"):
        gpu_type, gpus = str(given.get("gpu_model", "")), int(given["gpu"])
    extra = _options(given, ("cpus_per_task", "mem_mb", "qos", "constraint"))
    extra += shlex.split(str(given.get("slurm_extra", "")))
    return JobRequest(*_place(given), gpus, gpu_type, float(given.get("runtime", 0)), tuple(extra))


def _place(given: Mapping) -> tuple[str, str, int]:
    """Return partition, account and number of nodes."""
    return str(given.get("slurm_partition", "")), str(given.get("slurm_account", "")), int(given.get("nodes", 1))


def _options(given: Mapping, names: Iterable[str]) -> list[str]:
    """Return resources as options of sbatch, without those that are empty or 0."""
    options = {"mem_mb": "mem"}
    return [f"--{options.get(name, name.replace('_', '-'))}={given[name]}" for name in names if given.get(name)]


# ----------------------------------------------------------------------------------------------------- the cluster


@dataclass(frozen=True)
class Node:
    """A node as a member of one partition, with its GPUs by type."""

    name: str
    partition: str
    usable: bool
    gpus: dict[str, int]

    def count(self, gpu_type: str) -> int:
        """Return the number of GPUs of a type; of all types if it is empty."""
        return self.gpus.get(gpu_type, 0) if gpu_type else sum(self.gpus.values())


@dataclass(frozen=True)
class Association:
    """An account of the user, in one partition or, if that is empty, in all; and the user's default account."""

    account: str
    partition: str
    default: str


@dataclass(frozen=True)
class Site:
    """The cluster: SLURM's settings, partitions by name, nodes, and the accounts and groups of the user.

    ``associations`` is None if the accounting does not answer.
    """

    settings: dict[str, str]
    partitions: dict[str, dict[str, str]]
    nodes: list[Node]
    associations: list[Association] | None
    user: str
    groups: list[str]

    @property
    def default_account(self) -> str:
        """The account that SLURM charges if none is given; empty if it is not known."""
        return next((association.default for association in self.associations or []), "")

    def partition(self, name: str) -> dict[str, str] | None:
        """Return a partition by its name, the default partition for an empty name; None if there is none."""
        if name:
            return self.partitions.get(name)
        return next((settings for settings in self.partitions.values() if settings.get("Default") == "YES"), None)


def read() -> Site:
    """Read the description of the cluster. Raises :class:`SlurmError` if SLURM's controller does not answer."""
    settings = _settings(ask("scontrol", "show", "config"))
    records = _records(ask("scontrol", "--oneliner", "show", "partition"))
    partitions = {record["PartitionName"]: record for record in records}
    nodes = [_node(line) for line in ask("sinfo", "--noheader", "--Node", "--format=%N|%R|%T|%G").splitlines()]
    user = pwd.getpwuid(os.getuid()).pw_name
    groups = [grp.getgrgid(number).gr_name for number in os.getgrouplist(user, os.getgid())]
    return Site(settings, partitions, nodes, _associations(user), user, groups)


def _settings(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _records(text: str) -> list[dict[str, str]]:
    """Parse lines ``Name=value Name=value`` of ``scontrol --oneliner``; values may contain spaces and ``=``."""
    return [dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", line)) for line in text.splitlines() if "=" in line]


def _node(line: str) -> Node:
    name, partition, state, gres = line.split("|")
    # "*" marks a node that does not answer. Other signs mark power saving and reboots, after which a node is usable.
    return Node(name, partition, state.rstrip("~#!%$@^-+") in USABLE, gpus_of(gres))


def _associations(user: str) -> list[Association] | None:
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "user", user, "withassoc"]
    try:
        lines = ask(*command, "format=account,partition,defaultaccount").splitlines()
    except SlurmError:
        return None
    return [Association(*line.split("|")) for line in lines if not line.startswith("|")]


def gpus_of(gres: str) -> dict[str, int]:
    """Return the GPUs by type in SLURM's notation ``gpu:a100:8(S:0-1),nvme:1``; the type ``""`` if none is given."""
    found: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *parts = item.split(":")
        if name == "gpu":
            count = int(parts[-1]) if parts and parts[-1].isdecimal() else 1
            kind = parts[0] if parts and not parts[0].isdecimal() else ""
            found[kind] = found.get(kind, 0) + count
    return found


def minutes(limit: str) -> float:
    """Return the minutes of ``1-12:00:00`` or ``12:00:00``; infinity for UNLIMITED and NONE."""
    if limit.upper() in ("UNLIMITED", "INFINITE", "NONE"):
        return math.inf
    days, _, clock = limit.rpartition("-")
    hours, mins, seconds = (int(part) for part in clock.split(":"))
    return int(days or 0) * 24 * 60 + hours * 60 + mins + seconds / 60
