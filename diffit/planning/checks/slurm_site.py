"""What the jobs of a profile ask SLURM for, and the cluster as SLURM describes it, in its formats for programs."""

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


# --------------------------------------------------------------------------------------------- what is asked for


@dataclass(frozen=True)
class Request:
    """What jobs of some rules ask SLURM for. GPUs, and ``extra`` options of sbatch, are those of one node.

    ``setup`` is the shell line that a training runs on its nodes first.
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
        """Its partition, for people."""
        return f"partition {self.partition}" if self.partition else "the default partition"

    def options(self) -> list[str]:
        """As options of sbatch; what is empty is left to the cluster."""
        gpus = f"gpu:{self.gpu_type}:{self.gpus}" if self.gpu_type else f"gpu:{self.gpus}"
        given = {
            "partition": self.partition,
            "account": self.account,
            "nodes": self.nodes,
            "gres": gpus if self.gpus else "",
            "time": math.ceil(self.minutes) if self.minutes else "",
        }
        return [f"--{name}={value}" for name, value in given.items() if value] + list(self.extra)


def requests(jobs: Iterable[Job]) -> dict[Request, list[str]]:
    """The different requests of jobs, each with its rules. A training that runs on this machine asks for nothing."""
    found: dict[Request, list[str]] = {}
    for job in jobs:
        training = "launcher" in job.resources
        if training and job.resources["launcher"] != "slurm":
            continue
        request = (_of_training if training else _of_stage)(job.resources)
        rules = found.setdefault(request, [])
        if job.rule not in rules:
            rules.append(job.rule)
    return found


def _of_training(given: Mapping) -> Request:
    """The resources of rule train, see workflow/rules/train.smk; its CPUs are those of a rank, one rank a GPU."""
    further = (option.lstrip("-").partition("=") for option in shlex.split(str(given.get("sbatch", ""))))
    extra = [f"--{name.replace('_', '-')}{equals}{value}" for name, equals, value in further]
    gpus = int(given.get("gpus", 0))
    extra += [f"--ntasks-per-node={max(1, gpus)}"]
    extra += [f"--cpus-per-task={given['cpus']}"] if given.get("cpus") else []
    extra += [f"--mem={given['memory']}"] if given.get("memory") else []
    return Request(
        str(given.get("partition", "")), str(given.get("account", "")), int(given.get("nodes", 1)), gpus, "",
        60 * float(given.get("hours", 24)), tuple(extra), str(given.get("setup", "")), trains=True,
    )  # fmt: skip


def _of_stage(given: Mapping) -> Request:
    """The resources that Snakemake's plugin for SLURM reads."""
    gpus = gpus_of(str(given.get("gres", "")))
    kind, count = next(iter(gpus.items()), ("", 0))
    if given.get("gpu"):
        kind, count = str(given.get("gpu_model", "")), int(given["gpu"])
    names = {"cpus_per_task": "cpus-per-task", "mem_mb": "mem", "qos": "qos", "constraint": "constraint"}
    extra = [f"--{option}={given[name]}" for name, option in names.items() if given.get(name)]
    extra += shlex.split(str(given.get("slurm_extra", "")))
    return Request(
        str(given.get("slurm_partition", "")), str(given.get("slurm_account", "")), int(given.get("nodes", 1)),
        count, kind, float(given.get("runtime", 0)), tuple(extra),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- what the cluster is


@dataclass(frozen=True)
class Node:
    """A node in one of its partitions, with its GPUs by type."""

    name: str
    partition: str
    usable: bool
    gpus: dict[str, int]

    def count(self, gpu_type: str) -> int:
        """Its GPUs of a type, or of all types."""
        return self.gpus.get(gpu_type, 0) if gpu_type else sum(self.gpus.values())


@dataclass(frozen=True)
class Association:
    """An account that the user may charge, in one partition or, where none is named, in all; and the default one."""

    account: str
    partition: str
    default: str


@dataclass(frozen=True)
class Site:
    """What SLURM says of itself: its settings, partitions by name, nodes, and the accounts of the user.

    ``associations`` is None where the accounting does not answer.
    """

    settings: dict[str, str]
    partitions: dict[str, dict[str, str]]
    nodes: list[Node]
    associations: list[Association] | None
    user: str
    groups: list[str]

    @property
    def default_account(self) -> str:
        """What SLURM charges where no account is named; empty where nobody knows."""
        return next((those.default for those in self.associations or []), "")

    def partition(self, name: str) -> dict[str, str] | None:
        """The partition of that name, or the default one where none is named."""
        if name:
            return self.partitions.get(name)
        return next((those for those in self.partitions.values() if those.get("Default") == "YES"), None)


def read() -> Site:
    """Ask SLURM. Raises :class:`SlurmError` where its controller does not answer."""
    settings = _settings(ask("scontrol", "show", "config"))
    partitions = {
        those["PartitionName"]: those for those in _records(ask("scontrol", "--oneliner", "show", "partition"))
    }
    nodes = [_node(line) for line in ask("sinfo", "--noheader", "--Node", "--format=%N|%R|%T|%G").splitlines()]
    user = pwd.getpwuid(os.getuid()).pw_name
    groups = [grp.getgrgid(number).gr_name for number in os.getgrouplist(user, os.getgid())]
    return Site(settings, partitions, nodes, _associations(user), user, groups)


def _settings(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _records(text: str) -> list[dict[str, str]]:
    """The lines of ``scontrol --oneliner``, each ``Name=value Name=value``; values may hold spaces and signs."""
    return [dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", line)) for line in text.splitlines() if "=" in line]


def _node(line: str) -> Node:
    name, partition, state, gres = line.split("|")
    # A star is a node that does not answer; other signs are those of power saving, from which nodes come back.
    return Node(name, partition, state.rstrip("~#!%$@^-+") in USABLE, gpus_of(gres))


def _associations(user: str) -> list[Association] | None:
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "user", user, "withassoc"]
    try:
        lines = ask(*command, "format=account,partition,defaultaccount").splitlines()
    except SlurmError:
        return None
    return [Association(*line.split("|")) for line in lines if not line.startswith("|")]


def gpus_of(gres: str) -> dict[str, int]:
    """GPUs by type, ``""`` for untyped ones, of generic resources as ``gpu:a100:8(S:0-1),nvme:1``."""
    found: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *parts = item.split(":")
        if name == "gpu":
            count = int(parts[-1]) if parts and parts[-1].isdecimal() else 1
            kind = parts[0] if parts and not parts[0].isdecimal() else ""
            found[kind] = found.get(kind, 0) + count
    return found


def minutes(limit: str) -> float:
    """Minutes of ``1-12:00:00`` or ``12:00:00``; infinite for UNLIMITED and NONE."""
    if limit.upper() in ("UNLIMITED", "INFINITE", "NONE"):
        return math.inf
    days, _, clock = limit.rpartition("-")
    hours, mins, seconds = (int(part) for part in clock.split(":"))
    return int(days or 0) * 24 * 60 + hours * 60 + mins + seconds / 60
