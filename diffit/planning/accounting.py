"""account: what the SLURM jobs behind a result used, stage by stage, as the cluster's accounting knows it.

    python -m diffit.planning.accounting OUT.csv STAGE=PATH …

``PATH`` is a manifest, whose shards' sidecars name the jobs that made them, one sidecar, or the ``legs.json`` of a
training. One call of sacct asks for all of them, with every start of a job that was requeued. What ran outside SLURM or
what the accounting does not know is a gap with its reason, never a zero; nothing here ends with an error, since a
result is not worth less without its bill.
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

from diffit.cli import Parser, UserError, run
from diffit.store import files

log = logging.getLogger("diffit")

SACCT_FIELDS = ("JobID", "JobName", "State", "ElapsedRaw", "CPUTimeRAW", "AllocTRES", "MaxRSS")
SACCT_SECONDS = 120
NUMBERS = ("gpu_hours", "cpu_hours", "elapsed_hours", "max_memory_gib")


@dataclass(frozen=True)
class Start:
    """One start of a job, from the node's first second to its last: hours, GPUs, and GiB of its largest task.

    ``gpus`` and ``memory`` are NaN where the accounting says nothing of them.
    """

    state: str
    hours: float
    cpu_hours: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class Made:
    """The jobs that made the files of a stage, and how many of its files no job is known of."""

    stage: str
    jobs: list[str]
    without: int


# ------------------------------------------------------------------------------------------ who made it


def made(stage: str, paths: Iterable[Path]) -> Made:
    """Read the jobs off sidecars, off the sidecars of a manifest's shards, and off the legs of a training."""
    jobs = [job for path in paths for job in _jobs(path)]
    return Made(stage, list(dict.fromkeys(filter(None, jobs))), jobs.count(None))


def _jobs(path: Path) -> list[str | None]:
    record = _record(path)
    if path.name == "manifest.json":
        shards = [path.with_name(shard["file"]) for shard in record.get("shards", [])]
        return [_record(files.sidecar(shard)).get("job") for shard in shards] or [None]
    return [leg.get("job") for leg in record.get("legs", [record])]


def _record(path: Path) -> dict:
    """A JSON object, empty where it is gone or damaged: the files of a stage may have been deleted since."""
    try:
        return files.read_json(path, remedy="")
    except UserError:
        return {}


# -------------------------------------------------------------------------------------- what it has used


def ask(jobs: Sequence[str]) -> str:
    """What sacct says of jobs and their steps, with every start of those that were requeued.

    Raises :class:`OSError` or :class:`subprocess.SubprocessError` where the accounting cannot be asked.
    """
    command = ["sacct", "--noheader", "--parsable2", "--noconvert", "--duplicates"]
    command += ["--jobs", ",".join(jobs), "--format", ",".join(SACCT_FIELDS)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SACCT_SECONDS).stdout


def starts(text: str) -> dict[str, list[Start]]:
    """The starts of each job in what :func:`ask` returned, oldest first.

    Numbers of jobs are given out again after a cluster was set up anew: what has another name than the newest job of
    that number is left out.
    """
    found: dict[str, list[tuple[str, Start]]] = {}
    for row, steps in _with_steps(text):
        memory = max((_gib(step["MaxRSS"]) for step in steps if step["MaxRSS"]), default=math.nan)
        hours, cpu_hours = (int(row[name] or 0) / 3600 for name in ("ElapsedRaw", "CPUTimeRAW"))
        start = Start(row["State"].split()[0], hours, cpu_hours, _gpus(row["AllocTRES"]), memory)
        found.setdefault(row["JobID"], []).append((row["JobName"], start))
    return {job: [start for name, start in those if name == those[-1][0]] for job, those in found.items()}


def _with_steps(text: str) -> list[tuple[dict, list[dict]]]:
    """Rows of starts, each with those of its steps, which follow it and have a dot in their numbers."""
    together: list[tuple[dict, list[dict]]] = []
    for line in text.splitlines():
        row = dict(zip(SACCT_FIELDS, line.split("|"), strict=True))
        if "." in row["JobID"]:
            together[-1][1].append(row)
        else:
            together.append((row, []))
    return together


def _gpus(tres: str) -> float:
    """GPUs of ``billing=4,cpu=4,gres/gpu=2,gres/gpu:a100=2``; NaN where it counts none."""
    counted = re.search(r"(?:^|,)gres/gpu=(\d+)", tres)
    return int(counted[1]) if counted else math.nan


def _gib(size: str) -> float:
    """GiB of sacct's ``123456K``; without a unit, bytes."""
    number, unit = re.fullmatch(r"([\d.]+)([KMGT]?)", size).groups()
    return float(number) * 1024 ** (" KMGT".index(unit or " ") - 3)


# ------------------------------------------------------------------------------------------- the table


def table(stages: Sequence[Made], found: dict[str, list[Start]], failure: str = "") -> pd.DataFrame:
    """One row a stage and one for all; jobs that made several stages, as an interactive one, have a row for these.

    Args:
        stages: who made what, in the order of the data.
        found: the starts of each job, see :func:`starts`.
        failure: why the accounting could not be asked.
    """
    together: dict[tuple[str, ...], list[str]] = {}
    for stage in stages:
        together.setdefault((stage.stage,), [])
    for job in dict.fromkeys(job for stage in stages for job in stage.jobs):
        those = tuple(stage.stage for stage in stages if job in stage.jobs)
        together.setdefault(those, []).append(job)
    counts_gpus = any(not math.isnan(start.gpus) for those in found.values() for start in those)
    rows = []
    for names, jobs in together.items():
        mine = [stage for stage in stages if (stage.stage,) == names]
        if not jobs and any(stage.jobs for stage in mine):
            continue  # all of its jobs made other stages too
        known = [start for job in jobs for start in found.get(job, [])]
        unknown = [job for job in jobs if job not in found]
        notes = _notes(sum(stage.without for stage in mine), jobs, unknown, known, failure, counts_gpus)
        rows.append({"stage": " and ".join(names), "jobs": len(jobs), **_used(known, counts_gpus), "note": notes})
    everything = [start for those in found.values() for start in those]
    gaps = [row["stage"] for row in rows if row["note"]]
    total = {"stage": "all", "jobs": sum(row["jobs"] for row in rows), **_used(everything, counts_gpus)}
    rows.append({**total, "note": f"of what is known: see {', '.join(gaps)}" if gaps else ""})
    return pd.DataFrame(rows).astype({"jobs": "Int64", "starts": "Int64"})


def _used(those: Sequence[Start], counts_gpus: bool) -> dict:
    """Sums over starts, and the largest memory; None where nothing is known."""
    gpus = [0 if math.isnan(start.gpus) else start.gpus for start in those]  # a job without GPUs names none
    memory = [start.memory for start in those if not math.isnan(start.memory)]
    return {
        "starts": len(those) or None,
        "gpu_hours": sum(n * start.hours for n, start in zip(gpus, those, strict=True))
        if those and counts_gpus
        else None,
        "cpu_hours": sum(start.cpu_hours for start in those) if those else None,
        "elapsed_hours": sum(start.hours for start in those) if those else None,
        "max_memory_gib": max(memory, default=None),
    }


def _notes(
    without: int, jobs: list[str], unknown: list[str], known: list[Start], failure: str, counts_gpus: bool
) -> str:
    notes = []
    if without:
        notes.append(f"{without} {'more ' if jobs else ''}made outside SLURM, or deleted since")
    if jobs and failure:
        notes.append(failure)
    elif unknown:
        more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
        notes.append(f"the accounting does not know job {unknown[0]}{more}")
    if running := [start for start in known if start.state in ("RUNNING", "COMPLETING", "SUSPENDED")]:
        notes.append(f"{len(running)} still running")
    if known and not counts_gpus:
        notes.append("the accounting counts no GPUs here")
    return "; ".join(notes)


def markdown(frame: pd.DataFrame) -> str:
    """The table for people, with gaps as dashes."""
    shown = frame.drop(columns="note").astype(object)
    for name in NUMBERS:
        shown[name] = [value if pd.isna(value) else _number(value) for value in frame[name].astype(float)]
    shown = shown.assign(note=frame["note"]).where(frame.notna(), "–")
    return (
        f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n"
        "Hours are those of all starts of all jobs added up, from sacct; GPUs and CPUs count as allocated. "
        "max_memory_gib is that of the largest task. Data that several runs share are counted in the table of each.\n"
    )


def _number(value: float) -> str:
    return "< 0.01" if 0 < value < 0.01 else f"{value:,.2f}"


def account(stages: Sequence[Made]) -> pd.DataFrame:
    """Ask the accounting, once, about all jobs of all stages."""
    found, failure = {}, ""
    if jobs := list(dict.fromkeys(job for stage in stages for job in stage.jobs)):
        try:
            found = starts(ask(jobs))
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            failure = f"sacct could not be asked ({said[-1].removeprefix('sacct: ')})"
            log.warning("warning: %s; ask again later: snakemake --forcerun cost GOAL", failure)
    return table(stages, found, failure)


def _stage(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not STAGE=PATH")
    return name, Path(path)


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="the table to write, results/{run}_cost.csv; .md beside it")
    parser.add_argument("stages", type=_stage, nargs="+", metavar="STAGE=PATH", help="who made what; STAGE may repeat")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    names = dict.fromkeys(name for name, _ in arguments.stages)
    stages = [made(name, [path for other, path in arguments.stages if other == name]) for name in names]
    frame = account(stages)
    with files.atomic(arguments.out.with_suffix(".md")) as temporary:
        temporary.write_text(markdown(frame))
    with files.atomic(arguments.out) as temporary:
        frame.to_csv(temporary, index=False)


if __name__ == "__main__":
    run(main)
