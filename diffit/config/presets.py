"""The layers of a configuration: presets of the paper's runs, below what the user writes; and entries based on others.

``presets: [samplers, table2]`` puts workflow/runs/samplers.yaml and table2.yaml below the configuration, which may
override any key of them. A run or sampler with ``base: NAME`` takes over the entry of that name and overrides keys of
it, at every depth. A section that names another ``kind`` than the base's section replaces it. ``paper`` is not taken
over: a published number belongs to one run.
"""

import copy
from pathlib import Path

from diffit.cli import UserError, suggestion
from diffit.config.yaml_files import read_mapping

FOLDER = "workflow/runs"
SECTIONS = ("samplers", "runs")
_NOT_INHERITED = ("paper",)


def add_presets(config: dict, sources: Path) -> None:
    """Put the presets that a configuration names below it and resolve every ``base``, in place.

    Raises :class:`UserError` for a preset or a base that does not exist, and for bases in a circle.
    """
    known = {path.stem: path for path in sorted((sources / FOLDER).glob("*.yaml"))}
    merged: dict = {}
    for name in _names(config.get("presets", [])):
        if name not in known:
            raise UserError(f"config: presets names {name!r}, which is not in {FOLDER}; {suggestion(name, known)}")
        merged = overlaid(merged, read_mapping(known[name]))
    config |= overlaid(merged, config)
    for section in SECTIONS:
        entries = config.get(section)
        if isinstance(entries, dict):
            config[section] = {name: _resolved(section, name, entries, ()) for name in entries}


def overlaid(below: dict, above: dict) -> dict:
    """A copy of ``below`` with the keys of ``above``, at every depth; lists are replaced.

    A dictionary that names its ``kind`` replaces one that names another kind or none.
    """
    result = copy.deepcopy(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        same_kind = both and ("kind" not in value or value["kind"] == old.get("kind"))
        result[key] = overlaid(old, value) if same_kind else copy.deepcopy(value)
    return result


def _names(presets: object) -> list[str]:
    return [name for name in presets if isinstance(name, str)] if isinstance(presets, list) else []


def _resolved(section: str, name: str, entries: dict, derived: tuple[str, ...]) -> object:
    """An entry with what it takes over from its base; ``derived`` are the entries that are based on it."""
    entry = entries[name]
    if not isinstance(entry, dict) or "base" not in entry:
        return entry
    base, own = entry["base"], {key: value for key, value in entry.items() if key != "base"}
    if not isinstance(base, str) or base not in entries:
        raise UserError(
            f"config: {section}.{name}.base names {base!r}, which is not defined; {suggestion(str(base), entries)}"
        )
    if base in (name, *derived):
        raise UserError(f"config: {section}.{name}.base leads back to {base!r}; remove one base of the circle")
    inherited = _resolved(section, base, entries, (name, *derived))
    return overlaid({key: value for key, value in inherited.items() if key not in _NOT_INHERITED}, own)
