"""Tabulate what the SLURM jobs behind a result used, stage by stage, from the cluster's accounting.

    python -m diffit.planning.accounting OUT.csv STAGE=PATH …

``PATH`` is a manifest (the sidecars of its shards name the jobs that made them), a sidecar, or the ``legs.json`` of a
training. One call of sacct covers all jobs, with every start of a requeued job. Work outside SLURM and jobs that sacct
does not know are gaps with a reason, never zeros. Accounting failures become notes; they never fail the rule.
"""

import argparse
import logging
import math
import re
import subprocess
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from diffit.cli import Parser, UserError, run_command
from diffit.store import files

log = logging.getLogger("diffit")

SACCT_FIELDS = ("JobID", "JobName", "State", "ElapsedRaw", "CPUTimeRAW", "AllocTRES", "MaxRSS")
SACCT_SECONDS = 120
NUMBERS = ("gpu_hours", "cpu_hours", "elapsed_hours", "max_memory_gib")


@dataclass(frozen=True)
class Start:
    """One start of a job: elapsed hours, CPU hours, allocated GPUs, and GiB of memory of its largest task.

    ``gpus`` and ``memory`` are NaN if the accounting does not report them.
    """

    state: str
    hours: float
    cpu_hours: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class StageJobs:
    """The jobs that made the files of a stage, and the number of its files without a known job."""

    name: str
    jobs: list[str]
    without: int


# ------------------------------------------------------------------------------------------ jobs behind files


def jobs_of_stage(name: str, paths: Iterable[Path]) -> StageJobs:
    """Read the jobs from sidecars, from the sidecars of a manifest's shards, and from the legs of a training."""
    jobs = [job for path in paths for job in _jobs(path)]
    return StageJobs(name, list(dict.fromkeys(filter(None, jobs))), jobs.count(None))


def _jobs(path: Path) -> list[str | None]:
    record = _record(path)
    if path.name == "manifest.json":
        shards = [path.with_name(shard["file"]) for shard in record.get("shards", [])]
        return [_record(files.sidecar(shard)).get("job") for shard in shards] or [None]
    return [leg.get("job") for leg in record.get("legs", [record])]


def _record(path: Path) -> dict:
    """A JSON object, empty if the file is gone or damaged, because users may delete the files of a stage."""
    try:
        return files.read_json(path, remedy="")
    except UserError:
        return {}


# -------------------------------------------------------------------------------------- what sacct says


def ask_sacct(jobs: Sequence[str]) -> str:
    """The output of sacct for jobs and their steps, with every start of requeued jobs.

    Raises :class:`OSError` or :class:`subprocess.SubprocessError` if sacct is missing, fails or does not end.
    """
    command = ["sacct", "--noheader", "--parsable2", "--noconvert", "--duplicates"]
    command += ["--jobs", ",".join(jobs), "--format", ",".join(SACCT_FIELDS)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SACCT_SECONDS).stdout


def parse_starts(text: str) -> dict[str, list[Start]]:
    """The starts of each job in the output of :func:`ask_sacct`, oldest first.

    A cluster that was set up again reuses job numbers, so starts whose job name differs from that of the newest start
    of the same number are left out.
    """
    found: dict[str, list[tuple[str, Start]]] = {}
    for row, steps in _with_steps(text):
        memory = max((_gib(step["MaxRSS"]) for step in steps if step["MaxRSS"]), default=math.nan)
        hours, cpu_hours = (int(row[name] or 0) / 3600 for name in ("ElapsedRaw", "CPUTimeRAW"))
        start = Start(row["State"].split()[0], hours, cpu_hours, _gpus(row["AllocTRES"]), memory)
        found.setdefault(row["JobID"], []).append((row["JobName"], start))
    return {job: [start for name, start in named if name == named[-1][0]] for job, named in found.items()}


def _with_steps(text: str) -> list[tuple[dict, list[dict]]]:
    """The row of each start with the rows of its steps, which follow it and have a dot in their job ID."""
    together: list[tuple[dict, list[dict]]] = []
    for line in text.splitlines():
        row = dict(zip(SACCT_FIELDS, line.split("|"), strict=True))
        if "." in row["JobID"]:
            together[-1][1].append(row)
        else:
            together.append((row, []))
    return together


def _gpus(tres: str) -> float:
    """The GPUs in ``billing=4,cpu=4,gres/gpu=2,gres/gpu:a100=2``; NaN if it lists none."""
    counted = re.search(r"(?:^|,)gres/gpu=(\d+)", tres)
    return int(counted[1]) if counted else math.nan


def _gib(size: str) -> float:
    """GiB of a size as sacct prints it, ``123456K``; a size without a unit is in bytes."""
    number, unit = re.fullmatch(r"([\d.]+)([KMGT]?)", size).groups()
    return float(number) * 1024 ** (" KMGT".index(unit or " ") - 3)


# ------------------------------------------------------------------------------------------- the table


def table(stages: Sequence[StageJobs], found: dict[str, list[Start]], failure: str = "") -> pd.DataFrame:
    """One row per stage and one for all. Jobs that made several stages have a row of their own.

    Args:
        stages: the jobs of each stage, in the order of the data.
        found: the starts of each job, see :func:`parse_starts`.
        failure: why sacct could not be asked.
    """
    counts_gpus = any(not math.isnan(start.gpus) for starts in found.values() for start in starts)
    without = {(stage.name,): stage.without for stage in stages}
    rows = []
    for names, jobs in _jobs_by_stages(stages).items():
        starts = [start for job in jobs for start in found.get(job, [])]
        note = _note(jobs, without.get(names, 0), found, failure, counts_gpus)
        rows.append({"stage": " and ".join(names), "jobs": len(jobs), **_sums(starts, counts_gpus), "note": note})
    gaps = [row["stage"] for row in rows if row["note"]]
    everything = [start for starts in found.values() for start in starts]
    total = {"stage": "all", "jobs": sum(row["jobs"] for row in rows), **_sums(everything, counts_gpus)}
    rows.append({**total, "note": f"incomplete, see {', '.join(gaps)}" if gaps else ""})
    return pd.DataFrame(rows).astype({"jobs": "Int64", "starts": "Int64"})


def _jobs_by_stages(stages: Sequence[StageJobs]) -> dict[tuple[str, ...], list[str]]:
    """Jobs by the stages that they made. A stage is left out if all its jobs made other stages too."""
    groups: dict[tuple[str, ...], list[str]] = {(stage.name,): [] for stage in stages}
    for job in dict.fromkeys(job for stage in stages for job in stage.jobs):
        names = tuple(stage.name for stage in stages if job in stage.jobs)
        groups.setdefault(names, []).append(job)
    with_jobs = {(stage.name,) for stage in stages if stage.jobs}
    return {names: jobs for names, jobs in groups.items() if jobs or names not in with_jobs}


def _sums(starts: Sequence[Start], counts_gpus: bool) -> dict:
    """Sums over starts and the largest memory; None for what is unknown."""
    gpus = [0 if math.isnan(start.gpus) else start.gpus for start in starts]  # sacct lists no GPUs for a CPU job
    gpu_hours = sum(count * start.hours for count, start in zip(gpus, starts, strict=True))
    memory = [start.memory for start in starts if not math.isnan(start.memory)]
    return {
        "starts": len(starts) or None,
        "gpu_hours": gpu_hours if starts and counts_gpus else None,
        "cpu_hours": sum(start.cpu_hours for start in starts) if starts else None,
        "elapsed_hours": sum(start.hours for start in starts) if starts else None,
        "max_memory_gib": max(memory, default=None),
    }


def _note(jobs: list[str], without: int, found: dict[str, list[Start]], failure: str, counts_gpus: bool) -> str:
    """Why the numbers of these jobs are incomplete; empty if they are complete."""
    unknown = [job for job in jobs if job not in found]
    starts = [start for job in jobs for start in found.get(job, [])]
    notes = []
    if without:
        notes.append(f"{without} {'more ' if jobs else ''}made outside SLURM or deleted since")
    if jobs and failure:
        notes.append(failure)
    elif unknown:
        more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
        notes.append(f"sacct does not know job {unknown[0]}{more}")
    if running := [start for start in starts if start.state in ("RUNNING", "COMPLETING", "SUSPENDED")]:
        notes.append(f"{len(running)} still running")
    if starts and not counts_gpus:
        notes.append("this cluster's accounting does not count GPUs")
    return "; ".join(notes)


def markdown(frame: pd.DataFrame) -> str:
    """The table as Markdown, with gaps as dashes."""
    shown = frame.drop(columns="note").astype(object)
    for name in NUMBERS:
        shown[name] = [value if pd.isna(value) else _number(value) for value in frame[name].astype(float)]
    shown = shown.assign(note=frame["note"]).where(frame.notna(), "–")
    return (
        f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n"
        "Hours are sums over all starts of all jobs, from sacct, of allocated GPUs and CPUs. max_memory_gib is the "
        "memory of the largest task. Data that several runs share are counted in the table of each run.\n"
    )


def _number(value: float) -> str:
    return "< 0.01" if 0 < value < 0.01 else f"{value:,.2f}"


def account(stages: Sequence[StageJobs]) -> pd.DataFrame:
    """The table of all stages, from one call of sacct about all their jobs."""
    found, failure = {}, ""
    if jobs := list(dict.fromkeys(job for stage in stages for job in stage.jobs)):
        try:
            found = parse_starts(ask_sacct(jobs))
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            failure = f"sacct failed ({said[-1].removeprefix('sacct: ')})"
            log.warning(
                "warning: %s; to ask it again later: snakemake --profile slurm --forcerun cost -- GOAL", failure
            )
    return table(stages, found, failure)


def _stage(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not STAGE=PATH")
    return name, Path(path)


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="the table to write, results/{run}_cost.csv; .md is written beside it")
    parser.add_argument(
        "stages",
        type=_stage,
        nargs="+",
        metavar="STAGE=PATH",
        help="a stage and a record of its jobs; STAGE may repeat",
    )
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    names = dict.fromkeys(name for name, _ in arguments.stages)
    stages = [jobs_of_stage(name, [path for other, path in arguments.stages if other == name]) for name in names]
    frame = account(stages)
    with files.atomic(arguments.out.with_suffix(".md")) as temporary:
        temporary.write_text(markdown(frame))
    with files.atomic(arguments.out) as temporary:
        frame.to_csv(temporary, index=False)


if __name__ == "__main__":
    run_command(main)
