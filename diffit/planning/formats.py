"""Numbers as plans and checks print them."""

import math

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def format_bytes(size: float) -> str:
    """A size in powers of 1000; a dash for 0."""
    power = min(int(math.log10(size)) // 3, len(UNITS) - 1) if size else 0
    return f"{size / 1000**power:.3g} {UNITS[power]}" if size else "–"


def format_count(count: float) -> str:
    """A number of images; a dash for 0."""
    return f"{count:,.0f}" if count else "–"


def format_gpu_hours(hours: float) -> str:
    """GPU-hours; a dash for 0."""
    return "–" if hours == 0 else "< 0.1" if hours < 0.1 else f"{hours:,.1f}" if hours < 100 else f"{hours:,.0f}"


def format_minutes(minutes: float) -> str:
    """A duration given in minutes, in its two largest units: ``3 min``, ``2 h 29 min``, ``7 d 9 h``, ``4 h``."""
    if math.isinf(minutes):
        return "any time"
    minutes = round(minutes)
    hours, days = minutes // 60, minutes // (24 * 60)
    if not minutes:
        return "< 1 min"
    units = [(days, "d"), (hours % 24, "h")] if days else [(hours, "h"), (minutes % 60, "min")]
    return " ".join(f"{count} {unit}" for count, unit in units if count)


def format_wall_time(hours: float) -> str:
    """A duration given in hours; 0 means that nobody estimated it."""
    return format_minutes(60 * hours) if hours else "not estimated"
