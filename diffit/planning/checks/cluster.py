"""Whether the cluster can take the jobs that a profile asks for: one small check a question, on what SLURM says."""

import math
import shutil
from collections.abc import Sequence

from diffit.planning.checks.result import CheckResult, ok, warning, wrong
from diffit.planning.checks.slurm_site import Request, Site, minutes
from diffit.slurm.commands import SlurmError, ask

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr")
PROFILE = "profiles/slurm/config.yaml"


def check_commands() -> list[CheckResult]:
    """Whether this machine can talk to SLURM at all."""
    if missing := [name for name in COMMANDS if not shutil.which(name)]:
        way_out = "log in to a machine of the cluster that submits jobs, or load its SLURM module"
        return [wrong(f"there is no {', '.join(missing)} here", way_out)]
    return [ok(f"SLURM's commands are here, {ask('sbatch', '--version').strip()}")]


def check_accounting(site: Site) -> list[CheckResult]:
    """Whether the accounting answers, and counts GPUs."""
    if site.associations is None:
        way_out = "ask the administrators; accounts cannot be checked, and what results cost stays a gap"
        return [warning("the accounting (slurmdbd) does not answer", way_out)]
    if "gres/gpu" not in site.settings.get("AccountingStorageTRES", ""):
        way_out = "ask the administrators for gres/gpu in AccountingStorageTRES; until then GPU-hours are gaps"
        return [warning("the accounting counts no GPUs", way_out)]
    return [ok("the accounting answers and counts GPUs")]


def check_requeue(site: Site) -> list[CheckResult]:
    """Whether a job that asks for nothing is requeued when its node fails."""
    if site.settings.get("JobRequeue") == "0":
        way_out = f"keep slurm-requeue: true in {PROFILE}"
        return [warning("jobs are requeued only where they ask for it (JobRequeue=0)", way_out)]
    return [ok("jobs may be requeued (JobRequeue=1)")]


def check_partition(site: Site, request: Request) -> list[CheckResult]:
    """Whether the partition is there and up, and lets the account in."""
    partition = site.partition(request.partition)
    if partition is None and not request.partition:
        return [wrong("no partition is named, and the cluster has no default one", f"set partition in {PROFILE}")]
    if partition is None:
        way_out = f"correct it in {PROFILE}; there are: {', '.join(site.partitions)}"
        return [wrong(f"there is no partition {request.partition!r}", way_out)]
    name, state, found = partition["PartitionName"], partition["State"], []
    if state != "UP":
        found.append(wrong(f"partition {name} is {state}", f"name another one in {PROFILE}, or wait"))
    allowed, denied = _names(partition.get("AllowAccounts", "ALL")), _names(partition.get("DenyAccounts", ""))
    account = (request.account or site.default_account).lower()
    if account in denied or not {"all", account} & allowed:
        what = f"partition {name} does not take the account {account or 'of nobody'}"
        found.append(wrong(what, f"name another account or partition in {PROFILE}"))
    groups = _names(partition.get("AllowGroups", "ALL"))
    if not {"all", *(group.lower() for group in site.groups)} & groups:
        way_out = "ask the administrators to let you in, or name another partition"
        found.append(wrong(f"partition {name} takes none of your groups", way_out))
    return found or [ok(f"partition {name} is up and open to you")]


def _names(text: str) -> set[str]:
    return {name.lower() for name in text.split(",") if name}


def check_account(site: Site, request: Request) -> list[CheckResult]:
    """Whether the user may charge the account in that partition."""
    partition = site.partition(request.partition)
    if site.associations is None or partition is None:
        return []  # said already
    if not request.account:
        if site.default_account:
            return [ok(f"no account is named: SLURM takes your default one, {site.default_account}")]
        return [wrong("no account is named, and you have no default one", f"set account in {PROFILE}")]
    name, mine = partition["PartitionName"], [those for those in site.associations if those.account == request.account]
    if not mine:
        known = ", ".join(sorted({those.account for those in site.associations})) or "none"
        return [wrong(f"{site.user} has no account {request.account!r}", f"correct it in {PROFILE}; yours: {known}")]
    if not any(those.partition in ("", name) for those in mine):
        where = ", ".join(those.partition for those in mine)
        what = f"the account {request.account} is yours in partition {where} only, not in {name}"
        return [wrong(what, f"correct one of them in {PROFILE}")]
    return [ok(f"the account {request.account} is yours")]


def check_gpus(site: Site, request: Request) -> list[CheckResult]:
    """Whether so many nodes of the partition are up, each with the GPUs asked for."""
    partition = site.partition(request.partition)
    if partition is None:
        return []
    name = partition["PartitionName"]
    nodes = [node for node in site.nodes if node.partition == name]
    fitting = [node for node in nodes if node.count(request.gpu_type) >= request.gpus]
    usable = sum(node.usable for node in fitting)
    asked = _gpus({request.gpu_type: request.gpus}) if request.gpus else "what is asked of one"
    if len(fitting) < request.nodes:
        there = " or ".join(sorted({_gpus(node.gpus) for node in nodes})) or "no GPU"
        what = (
            f"{request.nodes} × {asked} a node: {len(fitting)} of the {len(nodes)} nodes of partition {name} have that"
        )
        return [wrong(what, f"they have {there} each; correct nodes and GPUs, or the partition, in {PROFILE}")]
    if usable < request.nodes:
        return [
            warning(f"{usable} nodes of partition {name} with {asked} are up now", "jobs wait until others are back")
        ]
    return [ok(f"partition {name} has {usable} nodes up with {asked}")]


def _gpus(gpus: dict[str, int]) -> str:
    counts = [f"{count} {f'{kind} ' * bool(kind)}GPU{'s' * (count > 1)}" for kind, count in sorted(gpus.items())]
    return " and ".join(counts) or "no GPU"


def check_time(site: Site, request: Request, hours: float, rules: Sequence[str]) -> list[CheckResult]:
    """Whether the partition grants the time asked for, and whether that will do.

    Args:
        hours: what the longest of these jobs is estimated to take; 0 or NaN where nobody knows.
    """
    partition = site.partition(request.partition)
    if partition is None:
        return []
    name, who = partition["PartitionName"], ", ".join(rules)
    longest = minutes(partition.get("MaxTime", "UNLIMITED"))
    key = "the hours of train" if request.trains else f"the runtime of {who}"
    if request.minutes > longest:
        what = f"{who}: {_duration(request.minutes)} asked for, partition {name} gives {_duration(longest)} at most"
        goes_on = "; a longer training is requeued and goes on" if request.trains else ""
        return [wrong(what, f"lower {key} in {PROFILE}{goes_on}")]
    default = minutes(partition.get("DefaultTime", "NONE"))
    limit = request.minutes or (longest if math.isinf(default) else default)
    if not hours * 60 > limit:
        return [ok(f"partition {name} gives {who} {_duration(limit)}")]
    estimate = f"{who}: a job is estimated at {_duration(hours * 60)} and its limit is {_duration(limit)}"
    if request.trains:
        return [ok(f"{estimate}; it is requeued about {math.ceil(hours * 60 / limit) - 1:,} times and goes on")]
    return [warning(estimate, f"raise {key} in {PROFILE}, or cut into more shards in config.yaml")]


def _duration(mins: float) -> str:
    if math.isinf(mins):
        return "any time"
    if mins < 90:
        return f"{mins:.0f} min"
    return f"{mins / 60:.3g} h" if mins < 48 * 60 else f"{mins / 60 / 24:.3g} days"


def check_preemption(site: Site, request: Request) -> list[CheckResult]:
    """What happens to jobs when others want their nodes."""
    partition = site.partition(request.partition)
    if partition is None:
        return []
    kind = site.settings.get("PreemptType", "preempt/none").removeprefix("preempt/")
    name, grace = partition["PartitionName"], partition.get("GraceTime", "0")
    modes = set((partition.get("PreemptMode") or site.settings.get("PreemptMode", "OFF")).upper().split(","))
    if kind in ("none", "(null)") or "OFF" in modes:
        return [ok(f"jobs in partition {name} are not preempted")]
    if kind == "qos":
        way_out = "see sacctmgr show qos format=name,preempt,preemptmode: prefer one with REQUEUE, avoid CANCEL"
        return [warning(f"whether jobs in partition {name} are preempted, and how, depends on their QOS", way_out)]
    if "REQUEUE" in modes:
        what = (
            f"preempted jobs of partition {name} are requeued after {grace} s: the training goes on from its checkpoint"
        )
        return [ok(f"{what}, other jobs begin their shard again")]
    if "CANCEL" in modes:
        way_out = (
            "take a partition that requeues; else, when squeue is empty, stop Snakemake and give the command again"
        )
        return [
            warning(f"preempted jobs of partition {name} are cancelled, and Snakemake waits for them forever", way_out)
        ]
    way_out = "take another partition: suspended jobs keep the memory of their GPUs"
    return [warning(f"preempted jobs of partition {name} are suspended", way_out)]


def check_submission(request: Request) -> list[CheckResult]:
    """SLURM's own word on the whole request; nothing is submitted."""
    asked = " ".join(request.options())
    try:
        ask("sbatch", "--test-only", *request.options(), "--wrap", "true")
    except SlurmError as error:
        return [wrong(f"SLURM refuses {asked}: {error}", f"correct it in {PROFILE}")]
    return [ok(f"SLURM would take {asked}")]
