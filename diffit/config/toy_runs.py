"""Toy runs: small copies of the paper's runs, so that a laptop makes every row of a table in minutes.

A toy run is an ordinary run named ``toy_{run}``. It is derived from the run by the rules of workflow/toy.yaml, so that
no definition is written twice.
"""

import copy
from pathlib import Path

from diffit.cli import UserError
from diffit.config.presets import add_presets
from diffit.config.schema import config_schema
from diffit.config.validation import validate
from diffit.config.yaml_files import read_mapping

PREFIX = "toy_"
OVERLAY = "workflow/toy.yaml"
SCHEMA = "workflow/schemas/config.schema.yaml"


def load_overlay(path: Path) -> dict:
    """The rules of workflow/toy.yaml."""
    return read_mapping(path)


def complete(config: dict, sources: Path) -> dict:
    """Put presets below a configuration, validate it, and add its toy runs, in place; returns it.

    Raises :class:`UserError` for the first mistake.
    """
    add_presets(config, sources)
    schema = config_schema(sources / SCHEMA)
    validate(config, schema)
    for section in ("runs", "samplers"):
        for name in config[section]:
            if name.startswith(PREFIX):
                raise UserError(f"config: {section}.{name} begins with {PREFIX}, as only toys do; rename it")
    for section, entries in toy_runs(config, load_overlay(sources / OVERLAY)).items():
        config[section] |= entries
    return validate(config, schema)


def toy_runs(config: dict, overlay: dict) -> dict:
    """The toy runs of a validated configuration and their samplers: ``{"runs": …, "samplers": …}``.

    A run has a toy if it is trained, if the overlay names its data set, and if the overlay's small data sets and VAEs
    are defined. Raises :class:`UserError` if the overlay does not fit the configuration.
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
        # Classes in a list are those of the large data set.
        samplers[PREFIX + name] = small | ({"labels": "balanced"} if isinstance(small.get("labels"), list) else {})
    return {"runs": runs, "samplers": samplers}


def toy_milestone(run: dict, kimg: int, overlay: dict) -> int:
    """The milestone of the toy run that corresponds to ``kimg`` of the run, in thousand images."""
    return round(kimg * overlay["kimg"][run["net"]["kind"]] / run["milestones"][-1])


def _run(name: str, run: dict, overlay: dict) -> dict:
    kind = run["net"]["kind"]
    if kind not in overlay["net"]:
        raise UserError(
            f"toys: run {name!r} has a net of kind {kind!r}, which {OVERLAY} does not describe; add it there"
        )
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
    """A copy of ``described`` with some integers divided, some limited, and some values replaced."""
    small = copy.deepcopy(described)
    for key, divisor in rules.get("divide", {}).items():
        if key in small:
            if small[key] % divisor and small[key] > divisor:
                raise UserError(f"toys: {place}.{key} {small[key]} cannot be divided by {divisor}; change {OVERLAY}")
            small[key] = max(1, small[key] // divisor)
    for key, most in rules.get("at_most", {}).items():
        if key in small:
            small[key] = min(small[key], most)
    return small | rules.get("set", {})
