"""Light jobs that a killed Snakemake left in SLURM's queue: they would write what its successor makes again."""

import getpass
import logging
import shutil
import time
from pathlib import Path

from diffit.slurm.commands import SlurmError, ask

log = logging.getLogger("diffit")

PATIENCE_SECONDS = 300


def cancel(folder: Path) -> list[str]:
    """Cancel the jobs that Snakemake's plugin submitted from ``folder`` and wait until they are gone; their numbers.

    Only for who holds Snakemake's lock of the folder: whoever submitted them is dead then. Trainings are none of them:
    they have their own way of being found again (diffit/launch/launcher.py). Nothing is done where there is no SLURM, or where
    it does not answer.
    """
    if not shutil.which("squeue"):
        return []
    try:
        orphans = _light_jobs(folder)
        if orphans:
            ask("scancel", *orphans)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while orphans & _light_jobs(folder) and time.monotonic() < deadline:
            time.sleep(1)
    except SlurmError as error:
        log.warning("warning: whether a Snakemake that is gone left jobs in the queue is not known: %s", error)
        return []
    return sorted(orphans)


def _light_jobs(folder: Path) -> set[str]:
    said = ask("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A|%k|%Z")
    jobs = (line.split("|", 1) for line in said.splitlines())
    # The plugin's comments say the rule, and wildcards that may hold the separator.
    return {job for job, rest in jobs if rest.startswith("rule_") and rest.endswith(f"|{folder}")}
