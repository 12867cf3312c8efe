"""Check whether this cluster can make a goal, before anything is submitted.

    python -m diffit.planning.preflight [GOAL …] [--profile slurm] [--no-probe]

Checks the jobs of Snakemake's dry run under the profile that would run them: SLURM, accounts, partitions, GPUs, time
limits and preemption; with a one-minute test job per partition, the shared file system; free disk space; data and
weights to download; scores that the Inception network cannot give; package versions. The exit status is 1 if anything
is wrong.
"""

import math
import re
import shutil
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from diffit.cli import Parser, positive_int, print_result, run_command
from diffit.planning.checks import cluster, downloads, driver, packages, probe_job, scores, slurm_site
from diffit.planning.checks.result import CheckResult, ok, summary, warning, wrong
from diffit.planning.costs import Costs, Gpu
from diffit.planning.dry_run import Workflow
from diffit.planning.formats import format_bytes
from diffit.planning.goals import add_goal_arguments, planned_workflow
from diffit.slurm.commands import SlurmError

SHARED_FILE_SYSTEMS = (
    "nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "glusterfs", "pvfs", "orangefs", "panfs", "wekafs", "afs",
    "cifs", "smb", "9p", "virtiofs", "daos",
)  # fmt: skip


def check_disk(results: Path, sizes: Sequence[float]) -> list[CheckResult]:
    """Compare free disk space with the bytes that a goal adds; NaN stands for an unknown size."""
    free = shutil.disk_usage(existing(results)).free
    known = [size for size in sizes if not math.isnan(size)]
    at_least = "at least " if len(known) < len(sizes) else ""
    what = f"{format_bytes(free)} are free under {results}; the goal needs {at_least}{format_bytes(sum(known))}"
    if sum(known) > free:
        return [wrong(what, "free some space, or make results a link to a larger disk")]
    if at_least:
        return [warning(what, "give the number of images with --images DATASET=COUNT")]
    return [ok(f"{what} (quotas are not checked)")]


def check_file_system(results: Path, mounts: str) -> list[CheckResult]:
    """Check in the text of /proc/mounts whether the file system of the results is of a kind that machines share."""
    place, found = existing(results).resolve(), []
    for line in mounts.splitlines():
        mounted, kind = (re.sub(r"\\(\d{3})", lambda o: chr(int(o[1], 8)), field) for field in line.split()[1:3])
        if place.is_relative_to(mounted):
            found.append((len(mounted), len(found), kind))  # longest mount point; among equals, the last one mounted
    kind = max(found)[2] if found else "an unknown file system"
    if kind.startswith(SHARED_FILE_SYSTEMS):
        return [ok(f"{results} is on {kind}, a shared file system")]
    return [
        warning(
            f"{results} is on {kind}, which looks like a local disk of {socket.gethostname()}",
            "work on the cluster's shared file system, or drop --no-probe so that a test job checks it",
        )
    ]


def existing(path: Path) -> Path:
    """A path, or the nearest folder above it that exists."""
    return next(folder for folder in [path, *path.absolute().parents] if folder.exists())


def check_cluster(workflow: Workflow, costs: Costs, wait: float | None) -> list[CheckResult]:
    """All checks of SLURM, with a test job per partition and account; each gets ``wait`` seconds, None skips them."""
    found = cluster.check_commands()
    if found[0].level == "wrong":
        return found
    try:
        site = slurm_site.read()
    except SlurmError as error:
        return [*found, wrong(f"SLURM does not answer: {error}", "try again later, or ask your administrators")]
    found += cluster.check_accounting(site) + cluster.check_requeue(site)
    tested = set()
    for request, rules in slurm_site.requests(workflow.jobs).items():
        found += cluster.check_partition(site, request) + cluster.check_account(site, request)
        found += cluster.check_gpus(site, request)
        found += cluster.check_time(site, request, _longest_hours(workflow, costs, request, rules), rules)
        found += cluster.check_preemption(site, request)
        found += cluster.check_submission(request)
        place = (request.partition, request.account, request.gpus > 0, request.setup)
        if wait is not None and place not in tested:
            tested.add(place)
            found += probe_job.check(request, workflow.folder / "results", wait)
    return list(dict.fromkeys(found))


def _longest_hours(workflow: Workflow, costs: Costs, request: slurm_site.JobRequest, rules: Sequence[str]) -> float:
    """Estimated hours of the longest job of a request, from the first job of each rule, since shards are alike."""
    first = {job.rule: job for job in reversed(workflow.jobs) if job.rule in rules}
    spread = request.nodes * max(1, request.gpus)
    return max(
        (sum(cost.gpu_hours for cost in costs.of(rule, [job])) / spread for rule, job in first.items()), default=0
    )


def check(workflow: Workflow, counts: dict[str, int], wait: float | None) -> list[CheckResult]:
    """All checks, in the order in which a run would fail."""
    results = workflow.folder / "results"
    costs = Costs(workflow.config, workflow.folder, Gpu(), counts)
    found = packages.check_packages() + packages.check_gpu_libraries(slurm_site.requests(workflow.jobs))
    if any(job.resources.get("launcher") == "local" for job in workflow.jobs):  # trains on this machine
        found += driver.check(driver.read(), socket.gethostname())
    found += check_cluster(workflow, costs, wait)
    if wait is None:  # no test job has checked it
        found += check_file_system(results, Path("/proc/mounts").read_text())
    rules = dict.fromkeys(job.rule for job in workflow.jobs)
    sizes = [
        cost.bytes for rule in rules for cost in costs.of(rule, [job for job in workflow.jobs if job.rule == rule])
    ]
    found += check_disk(results, sizes) + downloads.check(workflow.jobs, workflow.config)
    return found + scores.check(workflow.jobs, workflow.config)


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    add_goal_arguments(parser, profile="slurm")
    parser.add_argument("--no-probe", action="store_true", help="submit no test job")
    parser.add_argument(
        "--wait", type=positive_int, default=120, metavar="SECONDS",
        help="for the answer of a test job (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    workflow = planned_workflow(arguments)
    if not workflow.jobs:
        print_result("Nothing to be done: everything asked for exists.")
        return
    results = check(workflow, dict(arguments.images), None if arguments.no_probe else arguments.wait)
    print_result("\n".join([*map(str, results), "", f"{summary(results)}."]))
    if any(result.level == "wrong" for result in results):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
