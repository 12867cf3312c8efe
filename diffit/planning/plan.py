"""Plan a goal before anything is submitted: its jobs, GPU-hours, disk space and wall time.

    python -m diffit.planning.plan [GOAL …] [--profile PROFILE] [--gpus N] [--jobs N] [--images DATASET=COUNT …]

The jobs are those of Snakemake's dry run, which changes nothing; without a goal, those of all configured runs.
GPU-hours = FLOPs / (assumed FLOP/s of a GPU), see diffit/planning/costs.py. Disk space follows from the file formats.
"""

import argparse
import math
import shutil
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffit.cli import Parser, positive_int, positive_number, print_result, run_command
from diffit.numerics.precision import PRECISIONS
from diffit.planning.costs import PNG_BYTES_PER_PIXEL, Cost, Costs, Gpu
from diffit.planning.dry_run import Job
from diffit.planning.formats import format_bytes, format_count, format_gpu_hours, format_wall_time
from diffit.planning.goals import add_goal_arguments, planned_workflow
from diffit.runs.checkpoints import KEEP

FORMATS = {
    "images": format_count,
    "GPU-hours": format_gpu_hours,
    "disk": format_bytes,
    "wall time": format_wall_time,
}


@dataclass(frozen=True)
class Stage:
    """All jobs of one rule: their number, and their cost in parts."""

    rule: str
    jobs: int
    costs: list[Cost]

    def summands(self, gpus: int, parallel: int) -> dict[str, list[float]]:
        """The numbers whose sums fill the columns of ``FORMATS``.

        Args:
            gpus: GPUs of a training.
            parallel: single-GPU jobs that run at the same time.
        """
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
    """Jobs by rule, in the order in which the rules finish."""
    by_rule: dict[str, list[Job]] = {}
    for job in jobs:
        by_rule[job.rule] = [*by_rule.pop(job.rule, []), job]  # moves the rule to the end
    return [Stage(rule, len(of_rule), costs.of(rule, of_rule)) for rule, of_rule in by_rule.items()]


def table(planned_stages: Sequence[Stage], gpus: int, parallel: int) -> str:
    """The stages and their sum as lines of aligned columns; see :meth:`Stage.summands` for the arguments."""
    summands = [stage.summands(gpus, parallel) for stage in planned_stages]
    rows = [("stage", "jobs", *FORMATS)]
    for stage, values in zip(planned_stages, summands, strict=True):
        rows.append((stage.rule, f"{stage.jobs:,}", *(_sum(values[name], FORMATS[name]) for name in FORMATS)))
    together = {name: [value for values in summands for value in values[name]] for name in FORMATS}
    sums = (_sum(together[name], FORMATS[name]) if name != "images" else "" for name in FORMATS)
    rows.append(("total", f"{sum(stage.jobs for stage in planned_stages):,}", *sums))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        numbers = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]))
    rule = "─" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _sum(values: Sequence[float], form: Callable[[float], str]) -> str:
    """A sum; if some values are unknown (NaN), its lower bound."""
    known = form(sum(value for value in values if not math.isnan(value)))
    if not any(map(math.isnan, values)):
        return known
    return f"≥ {known}" if known[0].isdigit() else "unknown"


def assumptions(gpu: Gpu, gpus: int, parallel: int) -> str:
    """The assumptions behind the numbers, in three lines; see :meth:`Stage.summands` for the arguments."""
    float32 = 1 / PRECISIONS["float32"].speed
    return "\n".join(
        [
            f"GPU-hours: FLOPs (2 per multiply-add) / ({gpu.peak / 1e12:g} TFLOP/s in bfloat16, half of it in TF32, "
            f"1/{float32:g} in float32). Training reaches {gpu.training:.0%} of the peak, all else "
            f"{gpu.inference:.0%}. Work is in float32 unless a run or sampler says otherwise.",
            f"Wall time: stages one after another, no queueing; training on {gpus} GPUs, other stages as {parallel} "
            "single-GPU jobs at a time. CPU work, downloads and reading are not estimated.",
            f"Disk: nothing is deleted. PNG images take {PNG_BYTES_PER_PIXEL} bytes per pixel, a run {KEEP} "
            "checkpoints and the one being written. Downloads, indexes and logs are not counted.",
        ]
    )


def disk(planned_stages: Sequence[Stage], results: Path) -> str:
    """The free disk space under ``results``, with a warning if the plan needs more."""
    existing = next(folder for folder in [results, *results.parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    sizes = [cost.bytes for stage in planned_stages for cost in stage.costs]
    line = f"Free disk space under {results}: {format_bytes(free)}."
    if sum(size for size in sizes if not math.isnan(size)) > free:
        return f"warning: the plan does not fit on the disk. {line}"
    return line


def _fraction(text: str) -> float:
    value = positive_number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    add_goal_arguments(parser, profile="local")
    parser.add_argument("--gpus", type=positive_int, default=8, help="GPUs of a training (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=positive_int, default=8, help="single-GPU jobs at the same time (default: %(default)s)"
    )
    parser.add_argument(
        "--peak-tflops", type=positive_number, default=312,
        help="peak of a GPU in bfloat16 (default: %(default)s, an A100)",
    )  # fmt: skip
    parser.add_argument(
        "--utilization", type=_fraction, default=0.4,
        help="fraction of the peak that training reaches (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    workflow = planned_workflow(arguments)
    if not workflow.jobs:
        print_result("Nothing to be done: everything asked for exists.")
        return
    gpu, results = Gpu(arguments.peak_tflops * 1e12, arguments.utilization), workflow.folder / "results"
    costs = Costs(workflow.config, workflow.folder, gpu, dict(arguments.images))
    planned_stages = stages(workflow.jobs, costs)
    lines = [table(planned_stages, arguments.gpus, arguments.jobs), ""]
    lines.append(assumptions(gpu, arguments.gpus, arguments.jobs))
    if costs.unknown:
        names = sorted(costs.unknown)
        lines.append(
            f"Unknown: the number of images in {', '.join(names)}. Download it, or give the number: "
            f"--images {names[0]}=COUNT"
        )
    print_result("\n".join([*lines, disk(planned_stages, results)]))


if __name__ == "__main__":
    run_command(main)
