"""The registry of figures that are pictures: what the sections of workflow/figures.yaml can be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffit.cli import UserError
from diffit.config import paths
from diffit.config.validation import lookup
from diffit.paper.scale import SampleSet, Scale
from diffit.registry import COUNT, NATURAL, TEXT, Registry, default, optional
from diffit.registry.settings import Setting
from diffit.store.files import canonical

PLACE = "workflow/figures.yaml"
TOY_ROWS = 6  # toys have few samples

_TEXTS = {"type": "array", "minItems": 1, "items": TEXT}
_CLASSES = {"type": "array", "minItems": 1, "items": NATURAL}


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure.

    Args:
        name: its section in workflow/figures.yaml.
        description: one sentence for people.
        module: the command that draws it: ``python -m MODULE OUT.png ARGUMENTS…``.
        has_toys: whether it can be drawn of toys.
        settings: the keys of a figure in the section.
        inputs: maps a figure and a scale to the result files that it is drawn from.
        arguments: maps a figure and a scale to the command's arguments after ``OUT.png``.
    """

    name: str
    description: str
    module: str
    has_toys: bool
    settings: Mapping[str, Setting]
    inputs: Callable[[dict, Scale], list[str]]
    arguments: Callable[[dict, Scale], list[str]]


def _panels(figure: dict, scale: Scale) -> list[SampleSet]:
    """The samples of each panel, by the runs' own samplers or by those that the figure names."""
    runs, samplers = figure["runs"], figure.get("samplers", [None] * len(figure["runs"]))
    if len(samplers) != len(runs):
        raise UserError(f"{PLACE}: samplers {samplers} and runs {runs} differ in number; name one sampler per run")
    return [scale.samples(PLACE, *pair) for pair in zip(runs, samplers, strict=True)]


def _grid_inputs(figure: dict, scale: Scale) -> list[str]:
    return [paths.SAMPLES.format(**vars(samples)) for samples in _panels(figure, scale)]


def _grid_arguments(figure: dict, scale: Scale) -> list[str]:
    rows, classes = figure["rows"], figure.get("classes")
    if scale.overlay:  # toys are trained on other classes
        rows, classes = min(rows, TOY_ROWS), None
    layout = {"rows": rows, "columns": figure["columns"], "classes": classes}
    return [canonical(layout), *_folders(_grid_inputs(figure, scale))]


def _attention_inputs(figure: dict, scale: Scale) -> list[str]:
    return [paths.MILESTONE.format(**vars(scale.samples(PLACE, name))) for name in figure["runs"]]


def _attention_arguments(figure: dict, scale: Scale) -> list[str]:
    sampler = scale.samples(PLACE, figure["runs"][0]).sampler
    described = canonical(lookup(scale.config["samplers"], "sampler", sampler))
    return [described, *_folders(_attention_inputs(figure, scale)), "--seed", str(figure["seed"])]


def _diagram_arguments(figure: dict, scale: Scale) -> list[str]:
    return [canonical(scale.network(PLACE, figure["run"]))]


def _folders(inputs: list[str]) -> list[str]:
    return [str(Path(path).parent) for path in inputs]


FIGURES: Registry[FigureKind] = Registry(
    "section of figures",
    FigureKind(
        name="grids",
        description="samples in the order of their seeds, one panel per run",
        module="diffit.paper.image_grid",
        has_toys=True,
        settings={
            "runs": _TEXTS,
            "samplers": optional(_TEXTS),
            "classes": optional(_CLASSES),
            "rows": COUNT,
            "columns": COUNT,
        },
        inputs=_grid_inputs,
        arguments=_grid_arguments,
    ),
    FigureKind(
        name="attention",
        description="attention of the centre token along the sampling trajectory",
        module="diffit.paper.attention_maps",
        has_toys=True,
        settings={"runs": _TEXTS, "seed": default(NATURAL, 0)},
        inputs=_attention_inputs,
        arguments=_attention_arguments,
    ),
    FigureKind(
        name="diagrams",
        description="a network as boxes with their output sizes",
        module="diffit.paper.network_diagram",
        has_toys=False,
        settings={"run": TEXT},
        inputs=lambda figure, scale: [],
        arguments=_diagram_arguments,
    ),
)
