"""workflow/figures.yaml: the paper's figures that are pictures, read and checked."""

from dataclasses import dataclass
from pathlib import Path

from diffit.cli import UserError
from diffit.config.yaml_files import read_mapping
from diffit.paper.figures import FIGURES, PLACE, FigureKind
from diffit.registry import object_schema
from diffit.registry.mistakes import fill_in, sentence


@dataclass(frozen=True)
class Figure:
    """A figure: its kind and its settings."""

    kind: FigureKind
    settings: dict


def read(sources: Path) -> dict[str, Figure]:
    """The figures by name. Raises :class:`UserError` for an unknown section, a wrong key and a name given twice."""
    sections = read_mapping(sources / PLACE)
    figures: dict[str, Figure] = {}
    for section, described in sections.items():
        kind = FIGURES[section]
        for name, settings in described.items():
            if mistake := fill_in(settings, object_schema(kind.settings)):
                raise UserError(sentence(mistake, PLACE, "diffit/paper/figures.py lists the keys", (section, name)))
            if name in figures:
                raise UserError(f"{PLACE} has the figure {name!r} twice; rename one of them")
            figures[name] = Figure(kind, settings)
    return figures
