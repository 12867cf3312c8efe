"""workflow/figures.yaml: the paper's figures that are pictures, read and checked."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from diffit.cli import UserError
from diffit.config.validation import fill_in
from diffit.paper.figures import FIGURES, PLACE, FigureKind
from diffit.registry import object_schema


@dataclass(frozen=True)
class Figure:
    """A figure: its kind and its settings."""

    kind: FigureKind
    settings: dict


def read(sources: Path) -> dict[str, Figure]:
    """The figures by name. Raises :class:`UserError` for an unknown section, a wrong key and a name given twice."""
    try:
        sections = yaml.safe_load((sources / PLACE).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{PLACE} is not YAML ({str(error).splitlines()[0]}); correct it") from None
    figures: dict[str, Figure] = {}
    for section, described in sections.items():
        kind = FIGURES[section]
        for name, settings in described.items():
            if mistake := fill_in(settings, object_schema(kind.settings)):
                place = ".".join([section, name, *map(str, mistake.absolute_path)])
                raise UserError(f"{PLACE}: {place}: {mistake.message}; correct it")
            if name in figures:
                raise UserError(f"{PLACE} has the figure {name!r} twice; rename one of them")
            figures[name] = Figure(kind, settings)
    return figures
