"""One row of a benchmark: ours against theirs in one run, medians, and their ratio."""

import time
from collections.abc import Callable
from statistics import median


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], repeat: int = 3) -> float:
    """Time both in turns, ``repeat`` times after one warm-up of ours; print seconds and return theirs / ours."""
    ours()
    times = [(_seconds(ours), _seconds(theirs)) for _ in range(repeat)]
    us, them = (median(column) for column in zip(*times, strict=True))
    print(f"{name:<44} ours {us:9.4f} s   other {them:9.4f} s   ratio {them / us:7.1f}", flush=True)
    return them / us


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
