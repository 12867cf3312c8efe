"""One row of a benchmark: ours against another way in one run, medians, and their ratio."""

import time
from collections.abc import Callable
from statistics import median

import torch

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # operations a second: bfloat16, dense, as NVIDIA states them


def compare(
    name: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    repeat: int = 3,
    target: float | None = None,
    images: int | None = None,
    prepare: Callable[[], object] | None = None,
    operations: float | None = None,
) -> float:
    """Time both in turns, ``repeat`` times after one warm-up of ours; print a row and return other / ours.

    The row has seconds, or images a second where a call handles ``images`` of them, the ratio of the medians with the
    smallest and largest that one turn gave, and whether ``target`` was reached. ``prepare`` is called before each call
    and not timed. On a GPU of :data:`PEAKS` a second row has our MFU: what share of the peak the floating-point
    ``operations`` of a call of ours are in its time.
    """
    ways = (ours, other)
    _seconds(ours, prepare)
    times = [tuple(_seconds(way, prepare) for way in ways) for _ in range(repeat)]
    us, them = (median(column) for column in zip(*times, strict=True))
    ratios = [them / us for us, them in times]
    spread = f"({_ratio(min(ratios))} to {_ratio(max(ratios))})" if repeat > 1 else ""
    goal = f"target {target:g} {'reached' if them / us >= target else 'MISSED'}" if target else ""
    row = f"{name:<44} ours {_shown(us, images)}   other {_shown(them, images)}   ratio {_ratio(them / us):>6}"
    print(f"{row} {spread:<16} {goal}".rstrip(), flush=True)
    if operations and (peak := _peak()):
        note(f"ours: MFU {operations / us / peak:.1%} of {peak / 1e12:g} TFLOP/s on {torch.cuda.get_device_name()}")
    return them / us


def note(text: str) -> None:
    """Print a line that belongs to the row above it."""
    print(f"{'':<44} {text}", flush=True)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _shown(seconds: float, images: int | None) -> str:
    return f"{images / seconds:9,.0f} images/s" if images else f"{seconds:9.4f} s"


def _seconds(function: Callable[[], object], prepare: Callable[[], object] | None) -> float:
    if prepare:
        prepare()
    _finish()
    start = time.perf_counter()
    function()
    _finish()
    return time.perf_counter() - start


def _finish() -> None:
    """Wait for what a GPU was given to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak() -> float | None:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for gpu, peak in PEAKS.items() if gpu in name), None)
