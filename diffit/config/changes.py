"""Differences of two configurations; a run must not continue under another configuration."""

from pathlib import Path

from diffit.cli import UserError


def difference(old: dict, new: dict, place: str = "") -> list[str]:
    """The leaves in which two nested dictionaries differ, as ``key.path: old → new``, sorted by key."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += difference(a, b, f"{place}{key}.")
        elif a != b:
            lines.append(f"{place}{key}: {a} → {b}")
    return lines


def refuse_changes(folder: Path, before: dict, now: dict) -> None:
    """Raise :class:`UserError`, with the difference, if the run in ``folder`` began with another configuration."""
    if changes := difference(before, now):
        raise UserError(
            f"the run in {folder} began with another configuration ({'; '.join(changes)}); "
            f"change it back, name a new run for the new configuration, or start over by deleting {folder}"
        )


def shared_part(one: dict, other: dict) -> dict:
    """The part of ``one`` whose keys are also in ``other``, at every depth."""
    return {
        key: shared_part(value, other[key]) if isinstance(value, dict) and isinstance(other[key], dict) else value
        for key, value in one.items()
        if key in other
    }
