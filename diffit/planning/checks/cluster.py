"""Checks of the cluster for the jobs of a profile, based on the output of SLURM's commands."""

import math
import shutil
from collections.abc import Sequence

from diffit.planning.checks.result import CheckResult, ok, warning, wrong
from diffit.planning.checks.slurm_site import JobRequest, Site, minutes
from diffit.planning.formats import format_minutes
from diffit.slurm.commands import SlurmError, ask

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr")
PROFILE = "profiles/slurm/config.yaml"


def check_commands() -> list[CheckResult]:
    """Check that SLURM's commands are installed on this machine."""
    if missing := [name for name in COMMANDS if not shutil.which(name)]:
        remedy = "log in to a login node of the cluster, or load its SLURM module"
        return [wrong(f"commands of SLURM are missing: {', '.join(missing)}", remedy)]
    return [ok(f"the commands of SLURM are installed, {ask('sbatch', '--version').strip()}")]


def check_accounting(site: Site) -> list[CheckResult]:
    """Check that the accounting answers and records GPUs."""
    if site.associations is None:
        remedy = "ask the administrators; without it, accounts are not checked and tables of costs have gaps"
        return [warning("the accounting (slurmdbd) does not answer", remedy)]
    if "gres/gpu" not in site.settings.get("AccountingStorageTRES", ""):
        remedy = "ask the administrators for gres/gpu in AccountingStorageTRES; without it, GPU-hours are gaps"
        return [warning("the accounting does not record GPUs", remedy)]
    return [ok("the accounting answers and records GPUs")]


def check_requeue(site: Site) -> list[CheckResult]:
    """Check whether the cluster requeues a job by default when its node fails."""
    if site.settings.get("JobRequeue") == "0":
        remedy = f"keep slurm-requeue: true in {PROFILE}"
        return [warning("jobs are requeued only on request (JobRequeue=0)", remedy)]
    return [ok("jobs are requeued by default (JobRequeue=1)")]


def check_partition(site: Site, request: JobRequest) -> list[CheckResult]:
    """Check that the partition exists, is up, and admits the account and the user."""
    partition = site.partition(request.partition)
    if partition is None and not request.partition:
        return [wrong("no partition is given, and the cluster has no default", f"set slurm_partition in {PROFILE}")]
    if partition is None:
        remedy = f"correct slurm_partition in {PROFILE}; partitions are: {', '.join(site.partitions)}"
        return [wrong(f"there is no partition {request.partition!r}", remedy)]
    name, state, found = partition["PartitionName"], partition["State"], []
    if state != "UP":
        found.append(wrong(f"partition {name} is {state}", f"set another slurm_partition in {PROFILE}, or wait"))
    allowed, denied = _names(partition.get("AllowAccounts", "ALL")), _names(partition.get("DenyAccounts", ""))
    account = (request.account or site.default_account).lower()
    if account in denied or not {"all", account} & allowed:
        what = f"partition {name} does not admit the account {account or '(none)'}"
        found.append(wrong(what, f"set another slurm_account or slurm_partition in {PROFILE}"))
    groups = _names(partition.get("AllowGroups", "ALL"))
    if not {"all", *(group.lower() for group in site.groups)} & groups:
        remedy = f"ask the administrators for access, or set another slurm_partition in {PROFILE}"
        found.append(wrong(f"partition {name} does not admit your groups", remedy))
    return found or [ok(f"partition {name} is up and admits you")]


def _names(text: str) -> set[str]:
    return {name.lower() for name in text.split(",") if name}


def check_account(site: Site, request: JobRequest) -> list[CheckResult]:
    """Check that the user may charge the account in the partition."""
    partition = site.partition(request.partition)
    if site.associations is None or partition is None:
        return []  # reported by the checks above
    if not request.account:
        if site.default_account:
            return [ok(f"no account is given: SLURM charges your default account, {site.default_account}")]
        return [wrong("no account is given, and you have no default account", f"set slurm_account in {PROFILE}")]
    name = partition["PartitionName"]
    partitions = [each.partition for each in site.associations if each.account == request.account]
    if not partitions:
        known = ", ".join(sorted({each.account for each in site.associations})) or "none"
        remedy = f"correct slurm_account in {PROFILE}; your accounts are: {known}"
        return [wrong(f"{site.user} has no account {request.account!r}", remedy)]
    if not {"", name} & set(partitions):
        what = f"you may charge the account {request.account} only in partition {', '.join(partitions)}, not in {name}"
        return [wrong(what, f"correct slurm_account or slurm_partition in {PROFILE}")]
    return [ok(f"you may charge the account {request.account}")]


def check_gpus(site: Site, request: JobRequest) -> list[CheckResult]:
    """Check that enough nodes of the partition are up and have the requested GPUs."""
    partition = site.partition(request.partition)
    if partition is None:
        return []
    name = partition["PartitionName"]
    nodes = [node for node in site.nodes if node.partition == name]
    fitting = [node for node in nodes if node.count(request.gpu_type) >= request.gpus]
    usable = sum(node.usable for node in fitting)
    requested = f" with {_gpus({request.gpu_type: request.gpus})}" if request.gpus else ""
    if len(fitting) < request.nodes:
        present = " or ".join(sorted({_gpus(node.gpus) for node in nodes})) or "no GPU"
        what = (
            f"{request.nodes} nodes{requested} are requested, but {len(fitting)} of the {len(nodes)} nodes of "
            f"partition {name} fit"
        )
        remedy = f"its nodes have {present}; correct nodes, gpu or slurm_partition in {PROFILE}"
        return [wrong(what, remedy)]
    if usable < request.nodes:
        return [warning(f"only {usable} nodes of partition {name}{requested} are up", "jobs wait for other nodes")]
    return [ok(f"partition {name} has {usable} nodes up{requested}")]


def _gpus(gpus: dict[str, int]) -> str:
    counts = [f"{count} {f'{kind} ' * bool(kind)}GPU{'s' * (count > 1)}" for kind, count in sorted(gpus.items())]
    return " and ".join(counts) or "no GPU"


def check_time(site: Site, request: JobRequest, hours: float, rules: Sequence[str]) -> list[CheckResult]:
    """Check that the partition allows the time limit, and that the limit is long enough.

    Args:
        site: the cluster.
        request: the request of the jobs.
        hours: estimated duration of the longest job; 0 or NaN if unknown.
        rules: the rules of the jobs.
    """
    partition = site.partition(request.partition)
    if partition is None:
        return []
    name, who = partition["PartitionName"], ", ".join(rules)
    longest = minutes(partition.get("MaxTime", "UNLIMITED"))
    key = f"the runtime of {who}"
    if request.minutes > longest:
        asked, granted = format_minutes(request.minutes), format_minutes(longest)
        what = f"{who}: {asked} requested, but partition {name} allows at most {granted}"
        requeued = "; a longer training is requeued and continues" if request.trains else ""
        return [wrong(what, f"lower {key} in {PROFILE}{requeued}")]
    default = minutes(partition.get("DefaultTime", "NONE"))
    limit = request.minutes or (longest if math.isinf(default) else default)
    if not hours * 60 > limit:
        return [ok(f"partition {name} allows {who} {format_minutes(limit)}")]
    estimate = (
        f"{who}: a job is estimated at {format_minutes(hours * 60)} and its time limit is {format_minutes(limit)}"
    )
    if request.trains:
        return [ok(f"{estimate}; it is requeued about {math.ceil(hours * 60 / limit) - 1:,} times and continues")]
    return [warning(estimate, f"raise {key} in {PROFILE}, or set more shards in config.yaml")]


def check_preemption(site: Site, request: JobRequest) -> list[CheckResult]:
    """Report what happens to preempted jobs."""
    partition = site.partition(request.partition)
    if partition is None:
        return []
    kind = site.settings.get("PreemptType", "preempt/none").removeprefix("preempt/")
    name, grace = partition["PartitionName"], partition.get("GraceTime", "0")
    modes = set((partition.get("PreemptMode") or site.settings.get("PreemptMode", "OFF")).upper().split(","))
    if kind in ("none", "(null)") or "OFF" in modes:
        return [ok(f"jobs in partition {name} are not preempted")]
    if kind == "qos":
        remedy = "see sacctmgr show qos format=name,preempt,preemptmode; prefer a QOS with REQUEUE, avoid CANCEL"
        return [warning(f"the QOS of a job decides whether and how it is preempted in partition {name}", remedy)]
    if "REQUEUE" in modes:
        what = (
            f"preempted jobs of partition {name} are requeued after {grace} s: a training continues from its checkpoint"
        )
        return [ok(f"{what}, other jobs restart their shard")]
    if "CANCEL" in modes:
        remedy = "use a partition that requeues; otherwise, if squeue is empty, stop Snakemake and repeat the command"
        return [
            warning(f"preempted jobs of partition {name} are cancelled, and Snakemake waits for them forever", remedy)
        ]
    remedy = "use another partition: suspended jobs keep the memory of their GPUs"
    return [warning(f"preempted jobs of partition {name} are suspended", remedy)]


def check_submission(request: JobRequest) -> list[CheckResult]:
    """Check the whole request with ``sbatch --test-only``, which submits nothing."""
    options = " ".join(request.options())
    try:
        ask("sbatch", "--test-only", *request.options(), "--wrap", "true")
    except SlurmError as error:
        return [wrong(f"SLURM refuses {options}: {error}", f"correct the resources in {PROFILE}")]
    return [ok(f"SLURM accepts {options}")]
