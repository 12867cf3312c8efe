"""Cancel the jobs that a killed Snakemake left in SLURM's queue: they would write the same files as its successor's."""

import getpass
import logging
import shutil
import time
from pathlib import Path

from diffit.slurm.commands import SlurmError, ask

log = logging.getLogger("diffit")

TIMEOUT_SECONDS = 300
LOGS = ".snakemake/slurm_logs"  # the plugin makes this folder before it submits the first job


def cancel(folder: Path, submits: bool) -> list[str]:
    """Cancel the jobs that Snakemake's plugin submitted from ``folder``, wait for their end, and return their numbers.

    Only the holder of Snakemake's lock of the folder may call it, because then the Snakemake that submitted them has
    ended. Jobs of trainings are not cancelled: the training command attaches to them (diffit/launch/submission.py).
    ``submits`` says whether this Snakemake submits jobs itself. Without SLURM, if it does not answer, or in a folder
    from which nothing was ever submitted, nothing is done.
    """
    if not (submits or (folder / LOGS).is_dir()) or not shutil.which("squeue"):
        return []
    try:
        orphans = _light_jobs(folder)
        if orphans:
            ask("scancel", *orphans)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while orphans & _light_jobs(folder) and time.monotonic() < deadline:
            time.sleep(1)
    except SlurmError as error:
        log.warning("warning: cannot tell whether an earlier Snakemake left jobs in the queue: %s", error)
        return []
    return sorted(orphans)


def _light_jobs(folder: Path) -> set[str]:
    output = ask("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A|%k|%Z")
    jobs = (line.split("|", 1) for line in output.splitlines())
    # The plugin's comments contain the rule, and wildcards that may contain the separator.
    return {job for job, rest in jobs if rest.startswith("rule_") and rest.endswith(f"|{folder}")}
