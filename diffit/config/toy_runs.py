"""Toys of runs: the same definitions, smaller, so that every row of a table can be made on a laptop in minutes.

A toy is a run like any other, by the name ``toy_{run}``. What makes it small stands in one overlay, workflow/toy.yaml,
for all runs, so no definition is written twice.
"""

import copy
from pathlib import Path

import yaml

from diffit.cli import UserError
from diffit.config.presets import add_presets
from diffit.config.schema import config_schema
from diffit.config.validation import validate

PREFIX = "toy_"
OVERLAY = "workflow/toy.yaml"
SCHEMA = "workflow/schemas/config.schema.yaml"


def load_overlay(path: Path) -> dict:
    """The overlay, as it stands in workflow/toy.yaml."""
    return yaml.safe_load(path.read_text())


def complete(config: dict, sources: Path) -> dict:
    """Put presets below a configuration, validate it, and add the toys of its runs, in place; returns it.

    Raises :class:`UserError` for the first mistake.
    """
    add_presets(config, sources)
    schema = config_schema(sources / SCHEMA)
    validate(config, schema)
    for section, entries in toys(config, load_overlay(sources / OVERLAY)).items():
        if taken := sorted(entries.keys() & config[section].keys()):
            raise UserError(f"config: {section}.{taken[0]} has the name of a toy; give it one that does not begin so")
        config[section] |= entries
    return validate(config, schema)


def toys(config: dict, overlay: dict) -> dict:
    """Runs and samplers of the toys of a validated configuration: ``{"runs": …, "samplers": …}``.

    Published weights have no toys, nor have runs on data that the overlay does not name, which are small; nor are there
    any where the overlay's small data sets and VAEs are not defined. Raises :class:`UserError` where the overlay does
    not fit the configuration.
    """
    runs, samplers = {}, {}
    for name, run in config["runs"].items():
        data, vae = overlay["datasets"].get(run["dataset"]), overlay["vaes"].get(run["vae"])
        defined = data in config["datasets"] and (vae or run["vae"]) in {None, *config["vaes"]}
        if "weights" not in run and defined:
            runs[PREFIX + name] = _run(name, run, overlay)
    for name, sampler in config["samplers"].items():
        small = _shrunk(f"sampler.{name}", sampler, overlay["sampler"])
        small = {key: value for key, value in small.items() if key != "decoder"}
        # Classes that are listed are those of the large data set.
        samplers[PREFIX + name] = small | ({"labels": "balanced"} if isinstance(small.get("labels"), list) else {})
    return {"runs": runs, "samplers": samplers}


def toy_milestone(run: dict, kimg: int, overlay: dict) -> int:
    """The milestone of a run's toy that stands for ``kimg`` of the run."""
    return round(kimg * overlay["kimg"][run["net"]["kind"]] / run["milestones"][-1])


def _run(name: str, run: dict, overlay: dict) -> dict:
    kind = run["net"]["kind"]
    if kind not in overlay["net"]:
        raise UserError(f"toys: run {name!r} has a net of kind {kind!r}, for which the overlay says nothing; add it")
    return {
        **copy.deepcopy({key: value for key, value in run.items() if key not in ("paper", "baselines")}),
        "dataset": overlay["datasets"][run["dataset"]],
        "vae": overlay["vaes"].get(run["vae"], run["vae"]),
        "net": _shrunk(f"net.{kind}", run["net"], overlay["net"][kind]),
        "training": _shrunk("training", run["training"], overlay["training"]),
        "milestones": sorted({toy_milestone(run, kimg, overlay) for kimg in run["milestones"]}),
        "sampler": PREFIX + run["sampler"],
        "class_accuracy": False,
    }


def _shrunk(place: str, described: dict, rules: dict) -> dict:
    """A copy of ``described`` with some whole numbers divided, some cut, and some values set."""
    small = copy.deepcopy(described)
    for key, divisor in rules.get("divide", {}).items():
        if key in small:
            if small[key] % divisor and small[key] > divisor:
                raise UserError(f"toys: {place}.{key} {small[key]} cannot be divided by {divisor}; change the overlay")
            small[key] = max(1, small[key] // divisor)
    for key, most in rules.get("at_most", {}).items():
        if key in small:
            small[key] = min(small[key], most)
    return small | rules.get("set", {})
