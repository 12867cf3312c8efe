"""Rows of a benchmark: median times of our implementation and of another one, and their ratio."""

import time
from collections.abc import Callable
from statistics import median

import torch

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # FLOP/s of dense bfloat16 products, from NVIDIA's data sheets


def compare(
    name: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    repeat: int = 3,
    target: float | None = None,
    images: int | None = None,
    prepare: Callable[[], object] | None = None,
    flops: float | None = None,
) -> float:
    """Time both alternately after one warm-up of ours; print a row and return the ratio other / ours of the medians.

    The row contains times in seconds or images per second, the ratio with its smallest and largest value over the
    repetitions, and whether the target was reached. On a GPU in :data:`PEAKS`, a second row contains the model FLOPs
    utilization (MFU) of ours: flops / time / peak.

    Args:
        name: the title of the row.
        ours: one call of our implementation.
        other: one call of the other implementation.
        repeat: number of repetitions.
        target: the ratio to reach.
        images: images per call; if given, the row contains images per second.
        prepare: called before each call and not timed.
        flops: FLOPs of one call of ours.
    """
    functions = (ours, other)
    _seconds(ours, prepare)
    times = [tuple(_seconds(function, prepare) for function in functions) for _ in range(repeat)]
    our_time, other_time = (median(column) for column in zip(*times, strict=True))
    ratio = other_time / our_time
    ratios = [other_seconds / our_seconds for our_seconds, other_seconds in times]
    spread = f"({_ratio(min(ratios))} to {_ratio(max(ratios))})" if repeat > 1 else ""
    goal = f"target {target:g} {'reached' if ratio >= target else 'MISSED'}" if target else ""
    row = f"{name:<44} ours {_shown(our_time, images)}   other {_shown(other_time, images)}   ratio {_ratio(ratio):>6}"
    print(f"{row} {spread:<16} {goal}".rstrip(), flush=True)
    if flops and (peak := _peak_flops()):
        note(f"ours: MFU {flops / our_time / peak:.1%} of {peak / 1e12:g} TFLOP/s on {torch.cuda.get_device_name()}")
    return ratio


def note(text: str) -> None:
    """Print a note below a row."""
    print(f"{'':<44} {text}", flush=True)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _shown(seconds: float, images: int | None) -> str:
    return f"{images / seconds:9,.0f} images/s" if images else f"{seconds:9.4f} s"


def _seconds(function: Callable[[], object], prepare: Callable[[], object] | None) -> float:
    if prepare:
        prepare()
    _synchronize()
    start = time.perf_counter()
    function()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    """Wait until the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_flops() -> float | None:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for gpu, peak in PEAKS.items() if gpu in name), None)
