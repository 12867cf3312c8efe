"""The paper's tables as they stand in workflow/tables: read, checked, and resolved to the score files they need."""

import copy
from pathlib import Path

import yaml

from diffit.cli import UserError, nearest
from diffit.config.schema import table_schema
from diffit.config.toy_runs import PREFIX, toy_milestone
from diffit.config.validation import fill_in

SHAPE = "workflow/schemas/table.schema.yaml"


def read(path: Path, schema: Path) -> dict:
    """A table with its defaults. Raises :class:`UserError` for what has no place in one."""
    try:
        table = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML ({str(error).splitlines()[0]}); correct it") from None
    if mistake := fill_in(table, table_schema(schema)):
        place = ".".join(map(str, mistake.absolute_path)) or "the top level"
        raise UserError(f"{path}: {place}: {mistake.message}; {SHAPE} says what may stand there")
    keys, names = [column["key"] for column in table["columns"]], [row["name"] for row in table["rows"]]
    groups = {column["group"] for column in table["columns"]}
    for kind, given in (("column", keys), ("row", names)):
        if twice := {name for name in given if given.count(name) > 1}:
            raise UserError(f"{path} has the {kind} {min(twice)!r} twice; give one another name")
    for row in table["rows"]:
        place = f"{path}, row {row['name']!r}"
        for key in row["cells"]:
            _known(f"{place}: cells", key, keys)
        for group in row.get("ours", {}):
            _known(f"{place}: ours", group, groups)
        if "against" in row:
            _known(f"{place}: against", row["against"], names)
    for key in [table["figure"]["x"], *table["figure"]["y"]] if "figure" in table else []:
        _known(f"{path}: figure", key, keys)
    return table


def resolve(name: str, table: dict, config: dict, overlay: dict | None = None) -> dict:
    """A table whose rows of ours name their score files: ``scores`` by column, relative to ``results/``.

    With the ``overlay`` of toys they are the toys' scores, and rows of the paper are left out, with which toys compare
    in nothing. Raises :class:`UserError` for a run, sampler or milestone that there is none of.
    """
    table = copy.deepcopy(table)
    if overlay:
        table["title"] = f"Toy of: {table['title']}"
        table["rows"] = [row for row in table["rows"] if "ours" in row or "computed" in row]
        table["notes"] += [
            "Toys: the same definitions, smaller (workflow/toy.yaml), on handwritten digits. Each row runs.",
            "Sizes, counts and lengths that rows and notes name are those of the paper's scale.",
        ]
    if "architecture" in table:
        table["architecture"]["network"] = network(f"table {name}", table["architecture"].pop("run"), config)
    for row in table["rows"]:
        place = f"table {name}, row {row['name']!r}"
        if overlay:
            row.pop("against", None)
            if any(source["run"] in overlay["weights"] for source in row.get("ours", {}).values()):
                row["name"] += " (as a toy: trained)"
        if "computed" in row:
            row["network"] = network(place, row.pop("computed"), config)
        row["scores"] = {}
        for group, source in row.pop("ours", {}).items():
            stem = samples(place, source, config, overlay)
            for column in table["columns"]:
                if column["group"] == group and "metric" in column:
                    row["scores"][column["key"]] = f"scores/{stem}/{column['protocol']}.json"
    return table


def network(place: str, name: str, config: dict) -> dict:
    """What of the configuration settles a run's network."""
    _known(place, name, config["runs"])
    run = config["runs"][name]
    described = {key: run[key] for key in ("dataset", "vae", "net", "process", "seed")}
    vaes = {run["vae"]: config["vaes"][run["vae"]]} if run["vae"] else {}
    return {"runs": {name: described}, "datasets": {run["dataset"]: config["datasets"][run["dataset"]]}, "vaes": vaes}


def samples(place: str, source: dict, config: dict, overlay: dict | None) -> str:
    """The place of a set of samples: run/milestone/sampler."""
    name = source["run"]
    _known(place, name, config["runs"])
    run = config["runs"][name]
    sampler = source.get("sampler", run["sampler"])
    _known(place, sampler, config["samplers"])
    released = "weights" in run
    milestone = "released" if released else source.get("milestone", run["milestones"][-1])
    if not released and milestone not in run["milestones"]:
        raise UserError(f"{place}: {milestone} is no milestone of {name}; there are: {run['milestones']}")
    if not overlay:
        return f"{name}/{milestone}/{sampler}"
    trained = overlay["weights"].get(name, name)
    run = config["runs"][trained]
    milestone = run["milestones"][-1] if released else milestone
    return f"{PREFIX}{trained}/{toy_milestone(run, milestone, overlay)}/{PREFIX}{sampler}"


def _known(place: str, name: str, names) -> None:
    if name not in names:
        raise UserError(f"{place} names {name!r}, which is not defined; {nearest(str(name), names)}")
