"""One row of a benchmark: ours against another way in one run, medians, and their ratio."""

import time
from collections.abc import Callable
from statistics import median


def compare(
    name: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    repeat: int = 3,
    target: float | None = None,
    images: int | None = None,
) -> float:
    """Time both in turns, ``repeat`` times after one warm-up of ours; print a row and return other / ours.

    The row has seconds, or images a second where a call handles ``images`` of them, the ratio of the medians with the
    smallest and largest that one turn gave, and whether ``target`` was reached.
    """
    ours()
    times = [(_seconds(ours), _seconds(other)) for _ in range(repeat)]
    us, them = (median(column) for column in zip(*times, strict=True))
    ratios = [them / us for us, them in times]
    spread = f"({min(ratios):.1f} to {max(ratios):.1f})" if repeat > 1 else ""
    goal = f"target {target:g} {'reached' if them / us >= target else 'MISSED'}" if target else ""
    row = f"{name:<44} ours {_shown(us, images)}   other {_shown(them, images)}   ratio {them / us:6.1f}"
    print(f"{row} {spread:<16} {goal}".rstrip(), flush=True)
    return them / us


def _shown(seconds: float, images: int | None) -> str:
    return f"{images / seconds:9,.0f} images/s" if images else f"{seconds:9.4f} s"


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
