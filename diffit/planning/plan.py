"""plan: what a goal still needs, before anything is submitted: jobs, GPU-hours, disk, wall time.

    python -m diffit.planning.plan [GOAL …] [--profile PROFILE] [--gpus N] [--jobs N] [--images DATASET=COUNT …]

Jobs are those of Snakemake's dry run, which changes nothing; without a goal, those of all configured runs. GPU-hours
are FLOPs over the speed that a GPU is assumed to reach (see diffit/planning/costs.py), and disk follows from the formats of the
files.
"""

import argparse
import math
import shutil
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffit.cli import Parser, positive, run
from diffit.numerics.precision import PRECISIONS
from diffit.planning.costs import PNG_BYTES_A_PIXEL, Cost, Costs, Gpu
from diffit.planning.dry_run import Job, Workflow, planned
from diffit.runs.checkpoints import KEEP

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Stage:
    """All jobs of one rule, with what they cost in parts."""

    rule: str
    jobs: int
    costs: list[Cost]

    def cells(self, gpus: int, parallel: int) -> dict[str, list[float]]:
        """Numbers to add up by column: images, GPU-hours, bytes, hours."""
        hours = [cost.gpu_hours for cost in self.costs]
        # The last round of jobs may leave GPUs idle.
        speedup = gpus if self.rule == "train" else self.jobs / math.ceil(self.jobs / parallel)
        return {
            "images": [cost.images for cost in self.costs],
            "GPU-hours": hours,
            "disk": [cost.bytes for cost in self.costs],
            "wall time": [value / speedup for value in hours],
        }


def stages(jobs: Sequence[Job], costs: Costs) -> list[Stage]:
    """Jobs by rule, in the order in which rules are done with."""
    by_rule: dict[str, list[Job]] = {}
    for job in jobs:
        by_rule[job.rule] = by_rule.pop(job.rule, [])  # to the end
        by_rule[job.rule].append(job)
    return [Stage(rule, len(those), costs.of(rule, those)) for rule, those in by_rule.items()]


def table(planned_stages: Sequence[Stage], gpus: int, parallel: int) -> str:
    """The stages and their sum as lines of aligned columns."""
    cells = [stage.cells(gpus, parallel) for stage in planned_stages]
    together = {name: [value for stage in cells for value in stage[name]] for name in FORMATS}
    rows = [("stage", "jobs", *FORMATS)]
    for stage, values in zip(planned_stages, cells, strict=True):
        rows.append((stage.rule, f"{stage.jobs:,}", *(_sum(values[name], FORMATS[name]) for name in FORMATS)))
    sums = (_sum(together[name], FORMATS[name]) if name != "images" else "" for name in FORMATS)
    rows.append(("total", f"{sum(stage.jobs for stage in planned_stages):,}", *sums))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        numbers = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]))
    line = "─" * len(lines[0])
    return "\n".join([lines[0], line, *lines[1:-1], line, lines[-1]])


def _sum(values: Sequence[float], form: Callable[[float], str]) -> str:
    """A sum, or the least that it can be where parts of it are unknown."""
    known = form(sum(value for value in values if not math.isnan(value)))
    if not any(map(math.isnan, values)):
        return known
    return f"≥ {known}" if known[0].isdigit() else "unknown"


def _count(images: float) -> str:
    return f"{images:,.0f}" if images else "–"


def _gpu_hours(hours: float) -> str:
    return "–" if hours == 0 else "< 0.1" if hours < 0.1 else f"{hours:,.1f}" if hours < 100 else f"{hours:,.0f}"


def format_bytes(size: float) -> str:
    """A size for people, in powers of 1000; a dash for none."""
    power = min(int(math.log10(size)) // 3, len(UNITS) - 1) if size else 0
    return f"{size / 1000**power:.3g} {UNITS[power]}" if size else "–"


def _duration(hours: float) -> str:
    minutes = round(hours * 60)
    if hours == 0:
        return "not estimated"
    if minutes < 60:
        return f"{minutes} min" if minutes else "< 1 min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"


FORMATS = {"images": _count, "GPU-hours": _gpu_hours, "disk": format_bytes, "wall time": _duration}


def assumptions(gpu: Gpu, gpus: int, parallel: int) -> str:
    """What the numbers take for granted, in three lines."""
    return "\n".join(
        [
            f"GPU-hours: FLOPs (2 a multiply-add) over {gpu.peak / 1e12:g} TFLOP/s in bfloat16, half of it in TF32, "
            f"1/{1 / PRECISIONS['float32'].speed:g} in float32; training reaches {gpu.training:.0%} of the peak, all else "
            f"{gpu.inference:.0%}, in float32 unless a sampler says otherwise.",
            f"Wall time: stages one after another, without queues; training on {gpus} GPUs, of other stages {parallel} "
            "jobs of one GPU at a time; work on CPUs, downloads and reading are not estimated.",
            f"Disk: nothing is deleted; pictures take {PNG_BYTES_A_PIXEL} bytes a pixel as PNG, a run {KEEP} "
            "checkpoints and the one being written; downloads, indexes and logs are not counted.",
        ]
    )


def disk(stages_planned: Sequence[Stage], results: Path) -> str:
    """What the disk under ``results`` has free, with a warning where the plan does not fit."""
    place = next(folder for folder in [results, *results.parents] if folder.exists())
    free = shutil.disk_usage(place).free
    sizes = [cost.bytes for stage in stages_planned for cost in stage.costs]
    line = f"Free where {results} lies: {format_bytes(free)}."
    if sum(size for size in sizes if not math.isnan(size)) > free:
        return f"warning: the plan does not fit on the disk. {line}"
    return line


def _of_dataset(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    return name, positive(count)


def _share(text: str) -> float:
    value = _positive_number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to 1")
    return value


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def add_goals(parser: Parser, profile: str) -> None:
    """The arguments that say what is to be made, see :func:`asked`."""
    parser.add_argument("goals", nargs="*", metavar="GOAL", help="files to make, as results/digits_fid.csv")
    parser.add_argument("--profile", default=profile, help="Snakemake's profile (default: %(default)s)")
    parser.add_argument("-s", "--snakefile", type=Path, help="as Snakemake takes it")
    parser.add_argument("-d", "--directory", type=Path, help="where results/ lies, as Snakemake takes it")
    parser.add_argument(
        "--configfile", type=Path, action="append", default=[], help="as Snakemake takes it; repeatable"
    )
    parser.add_argument(
        "--images", type=_of_dataset, action="append", default=[], metavar="DATASET=COUNT",
        help="how many pictures a folder holds that is not downloaded yet; repeatable",
    )  # fmt: skip


def asked(arguments: Namespace) -> Workflow:
    """What Snakemake would run for the goals that the command line names."""
    options = ["--profile", arguments.profile]
    for name in ("snakefile", "directory"):
        if value := getattr(arguments, name):
            options += [f"--{name}", str(value)]
    if arguments.configfile:
        options += ["--configfile", *map(str, arguments.configfile)]
    return planned(arguments.goals, options)


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    add_goals(parser, profile="profiles/local")
    parser.add_argument("--gpus", type=positive, default=8, help="GPUs of a training (default: %(default)s)")
    parser.add_argument("--jobs", type=positive, default=8, help="jobs of one GPU at a time (default: %(default)s)")
    parser.add_argument(
        "--peak-tflops",
        type=_positive_number,
        default=312,
        help="of a GPU in bfloat16 (default: %(default)s, an A100's)",
    )
    parser.add_argument(
        "--utilization", type=_share, default=0.4, help="share of the peak in training (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    workflow = asked(arguments)
    if not workflow.jobs:
        print("Nothing to be done: all that was asked for is there.")
        return
    gpu, results = Gpu(arguments.peak_tflops * 1e12, arguments.utilization), workflow.folder / "results"
    costs = Costs(workflow.config, results, gpu, dict(arguments.images))
    planned_stages = stages(workflow.jobs, costs)
    print(
        table(planned_stages, arguments.gpus, arguments.jobs),
        assumptions(gpu, arguments.gpus, arguments.jobs),
        sep="\n\n",
    )
    if costs.unknown:
        names = sorted(costs.unknown)
        print(f"Unknown: how many images {', '.join(names)} has; download it, or say it: --images {names[0]}=COUNT")
    print(disk(planned_stages, results))


if __name__ == "__main__":
    run(main)
