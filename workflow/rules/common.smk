# What all rules share: the configuration, the lookups in it, and the constraints of wildcards.
import shlex
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from diffit.cli import exit_on_user_error
from diffit.config import paths
from diffit.config.result_lookups import ResultLookups
from diffit.config.toy_runs import PREFIX, complete
from diffit.launch import orphaned_jobs
from diffit.store.fingerprint import fingerprint


wildcard_constraints:
    dataset=r"[^/]+",
    vae=r"[^/]+",
    run=r"[^/]+",
    sampler=r"[^/]+",
    protocol=r"[^/]+",
    kimg=r"\d+|released",
    shape=r"\d+x\d+x\d+x3",
    shard=r"\d+",
    shards=r"\d+",
    images=r"data/[^/]+|samples/[^/]+/(\d+|released)/[^/]+",


# Rules say `python`: the interpreter that runs Snakemake, unless each rule gets an environment of its own.
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

# Beside every run is its toy, a run like any other.
SOURCES = Path(workflow.basedir)
exit_on_user_error(complete)(config, SOURCES)
RUNS = [name for name in config["runs"] if not name.startswith(PREFIX)]


# Lookups whose UserError ends Snakemake with one line.
class Adapter:
    def __init__(self, lookups):
        self.lookups = lookups

    def __getattr__(self, name):
        return exit_on_user_error(getattr(self.lookups, name))


look = Adapter(ResultLookups(config))


# The fingerprint of a module and of all that it computes with.
def code(module):
    return fingerprint([f"diffit.{module}"])


# An option with the folder of an input file; nothing where the rule has no such input.
def folder_option(option, path):
    return f"{option} {shlex.quote(str(Path(path).parent))}" if path else ""


# Without a profile, Snakemake asks for --cores while it starts. With one core it goes on to onstart, which only runs that
# execute jobs reach: dry runs, reports, --lint, --touch and --unlock need no profile.
HAS_PROFILE = bool(workflow.resource_settings.cores or workflow.resource_settings.nodes)
if not HAS_PROFILE:
    workflow.resource_settings.cores = 1


def require_profile():
    if not HAS_PROFILE:
        sys.exit(
            "error: no profile says where the jobs run; add --profile local for this machine or --profile slurm for a "
            "SLURM cluster"
        )


def cancel_orphaned_jobs():
    submits = workflow.executor_plugin.common_settings.local_exec is False
    for job in orphaned_jobs.cancel(Path.cwd(), submits):
        print(f"cancelled job {job}, which a Snakemake that has ended left in the queue", file=sys.stderr)


# The plugin submits a job array only when all its jobs are ready, so a rule with more jobs than --jobs never starts.
def refuse_endless_arrays():
    arrays = getattr(workflow.executor_settings, "array_jobs", None)
    if not arrays:
        return
    chosen = arrays.replace(";", ",").replace(" ", "").split(",")
    waiting = Counter(job.rule.name for job in workflow.dag.needrun_jobs() if not job.is_local)
    for name, count in waiting.items():
        if ("all" in chosen or name in chosen) and count > workflow.resource_settings.nodes:
            sys.exit(
                f"error: --slurm-array-jobs with {count} jobs of {name} and --jobs {workflow.resource_settings.nodes} "
                f"would wait forever; give --jobs {count} or more, or no arrays"
            )
