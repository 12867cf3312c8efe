"""preflight: whether a goal can be made on this cluster, before days of its time are asked for.

    python -m diffit.planning.preflight [GOAL …] [--profile slurm] [--no-probe]

For what Snakemake's dry run says is still to be made, under the profile that would run it: SLURM, accounts, partitions,
GPUs, time limits, preemption; a shared file system, by a job of a minute on each partition; free disk; data and weights
within reach; versions of packages. Ends with exit status 1 when anything is wrong.
"""

import re
import shutil
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from diffit.cli import Parser, positive, run
from diffit.planning.checks import cluster, downloads, probe_job, slurm_site
from diffit.planning.checks.result import Finding, ok, summary, warning, wrong
from diffit.planning.costs import Costs, Gpu
from diffit.planning.dry_run import Workflow
from diffit.planning.plan import add_goals, asked, format_bytes
from diffit.slurm.commands import SlurmError

LOCK_FILE = Path(__file__).resolve().parent.parent / "requirements.lock"
PLUGIN, PLUGIN_LEAST = "snakemake-executor-plugin-slurm", (2, 8, 0)
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "glusterfs", "pvfs", "orangefs", "panfs", "wekafs", "afs",
          "cifs", "smb", "9p", "virtiofs", "daos")  # fmt: skip


def check_packages(lock: Path = LOCK_FILE) -> list[Finding]:
    """Installed packages against the lock file, and the least version of Snakemake's plugin for SLURM."""
    again = "make install, in a fresh .venv if that does not help"
    found, other = [], []
    for line in lock.read_text().splitlines():
        name, sign, version = line.partition("==")
        if not sign:
            continue
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(wrong(f"the package {name} is not installed", again))
            continue
        if installed.partition("+")[0] != version:  # a build for one CUDA has a suffix
            other.append(f"{name} {installed} (locked: {version})")
        if name == PLUGIN and _version(installed) < PLUGIN_LEAST:
            least = ".".join(map(str, PLUGIN_LEAST))
            found.append(wrong(f"{PLUGIN} {installed} starts jobs of several GPUs twice; it takes {least}", again))
    if other:
        found.append(warning(f"other versions than locked: {', '.join(other)}", again))
    return found or [ok("the packages are those of requirements.lock")]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def check_disk(results: Path, sizes: Sequence[float]) -> list[Finding]:
    """Free disk against the bytes that a goal adds, where NaN is what nobody knows."""
    free = shutil.disk_usage(existing(results)).free
    known = sum(size for size in sizes if size == size)
    least = "at least " if len([size for size in sizes if size == size]) < len(sizes) else ""
    what = f"{format_bytes(free)} are free under {results}, the goal needs {least}{format_bytes(known)}"
    if known > free:
        return [wrong(what, "make room, or let results be a link to a larger disk")]
    if least:
        return [warning(what, "say how many pictures there are with --images DATASET=COUNT")]
    return [ok(f"{what} (a quota is not looked at)")]


def check_file_system(results: Path, mounts: str) -> list[Finding]:
    """Whether the file system is of a kind that several machines share, as /proc/mounts names it."""
    place, found = existing(results).resolve(), []
    for line in mounts.splitlines():
        mounted, kind = (re.sub(r"\\(\d{3})", lambda o: chr(int(o[1], 8)), field) for field in line.split()[1:3])
        if place.is_relative_to(mounted):
            found.append((len(mounted), len(found), kind))  # the innermost one; of equals, the one mounted last
    kind = max(found)[2] if found else "an unknown file system"
    if kind.startswith(SHARED):
        return [ok(f"{results} is on {kind}, which machines share")]
    return [
        warning(
            f"{results} is on {kind}, a disk of {socket.gethostname()} by its kind",
            "work on the file system that the cluster shares, or leave out --no-probe to see whether nodes have it",
        )
    ]


def existing(path: Path) -> Path:
    """A path, or the nearest folder above that is there."""
    return next(folder for folder in [path, *path.absolute().parents] if folder.exists())


def check_cluster(workflow: Workflow, costs: Costs, wait: float | None) -> list[Finding]:
    """All that concerns SLURM; the probe job for each partition and account waits ``wait`` seconds, None for no job."""
    found = cluster.check_commands()
    if found[0].level == "wrong":
        return found
    try:
        site = slurm_site.read()
    except SlurmError as error:
        return [*found, wrong(f"SLURM does not answer: {error}", "try again later, or ask the administrators")]
    found += cluster.check_accounting(site) + cluster.check_requeue(site)
    probed = set()
    for request, rules in slurm_site.requests(workflow.jobs).items():
        found += cluster.check_partition(site, request) + cluster.check_account(site, request)
        found += cluster.check_gpus(site, request)
        found += cluster.check_time(site, request, _longest(workflow, costs, request, rules), rules)
        found += cluster.check_preemption(site, request)
        found += cluster.check_submission(request)
        place = (request.partition, request.account, request.gpus > 0, request.setup)
        if wait is not None and place not in probed:
            probed.add(place)
            found += probe_job.check(request, workflow.folder / "results", wait)
    return list(dict.fromkeys(found))


def _longest(workflow: Workflow, costs: Costs, request: slurm_site.Request, rules: Sequence[str]) -> float:
    """Estimated hours of the longest job of a request, by the first of each rule: shards are alike."""
    first = {job.rule: job for job in reversed(workflow.jobs) if job.rule in rules}
    spread = request.nodes * max(1, request.gpus)
    return max(
        (sum(cost.gpu_hours for cost in costs.of(rule, [job])) / spread for rule, job in first.items()), default=0
    )


def check(workflow: Workflow, counts: dict[str, int], wait: float | None) -> list[Finding]:
    """Everything, in the order in which it goes wrong."""
    results = workflow.folder / "results"
    costs = Costs(workflow.config, results, Gpu(), counts)
    found = check_packages() + check_cluster(workflow, costs, wait)
    if wait is None:  # no job has shown it
        found += check_file_system(results, Path("/proc/mounts").read_text())
    rules = dict.fromkeys(job.rule for job in workflow.jobs)
    sizes = [
        cost.bytes for rule in rules for cost in costs.of(rule, [job for job in workflow.jobs if job.rule == rule])
    ]
    return found + check_disk(results, sizes) + downloads.check(workflow.jobs, workflow.config)


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    add_goals(parser, profile="slurm")
    parser.add_argument("--no-probe", action="store_true", help="send no job to see what a node sees")
    parser.add_argument(
        "--wait", type=positive, default=120, metavar="SECONDS", help="for that job (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    workflow = asked(arguments)
    if not workflow.jobs:
        print("Nothing to be done: all that was asked for is there.")
        return
    findings = check(workflow, dict(arguments.images), None if arguments.no_probe else arguments.wait)
    print(*findings, sep="\n")
    print(f"\n{summary(findings)}.")
    if any(finding.level == "wrong" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    run(main)
