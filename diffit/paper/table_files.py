"""The paper's tables as described in workflow/tables: read, checked, and resolved to the scores that they show."""

import copy
from pathlib import Path

from diffit.cli import UserError
from diffit.config.cross_checks import require_defined
from diffit.config.schema import table_schema
from diffit.config.yaml_files import read_mapping
from diffit.paper.scale import Scale
from diffit.registry.mistakes import fill_in, sentence

FOLDER = "workflow/tables"
SCHEMA = "workflow/schemas/table.schema.yaml"
RESULTS = "results/"
TOY_NOTES = (
    "Toys: the same definitions, made smaller by workflow/toy.yaml, on handwritten digits. Every row runs.",
    "Sizes, counts and training lengths in row names and notes are those of the paper's scale.",
)


def read_all(sources: Path) -> dict[str, dict]:
    """All tables by name. Raises :class:`UserError` for the first mistake."""
    return {path.stem: read(path, sources / SCHEMA) for path in sorted((sources / FOLDER).glob("*.yaml"))}


def read(path: Path, schema: Path) -> dict:
    """A table with its defaults filled in.

    Raises :class:`UserError` for a violation of the schema and for columns, groups or rows that are not defined.
    """
    table = read_mapping(path)
    if mistake := fill_in(table, table_schema(schema)):
        raise UserError(sentence(mistake, str(path), f"{SCHEMA} lists the valid keys and values"))
    _check_names(path, table)
    return table


def _check_names(path: Path, table: dict) -> None:
    """Check that columns and rows have unique names, and that rows and the figure refer to existing ones."""
    keys, names = [column["key"] for column in table["columns"]], [row["name"] for row in table["rows"]]
    groups = {column["group"] for column in table["columns"]}
    for kind, given in (("column", keys), ("row", names)):
        if repeated := {name for name in given if given.count(name) > 1}:
            raise UserError(f"{path} has the {kind} {min(repeated)!r} twice; rename one of them")
    for row in table["rows"]:
        place = f"{path}, row {row['name']!r}"
        for key in row["cells"]:
            require_defined(f"{place}: cells", key, keys)
        for group in row.get("ours", {}):
            require_defined(f"{place}: ours", group, groups)
        if "against" in row:
            require_defined(f"{place}: against", row["against"], names)
    for key in [table["figure"]["x"], *table["figure"]["y"]] if "figure" in table else []:
        require_defined(f"{path}: figure", key, keys)


def resolve(name: str, table: dict, scale: Scale) -> dict:
    """A copy of a table in which each of our rows names its score files and networks.

    ``scores`` of a row maps column keys to paths relative to ``results/``. A row whose numbers are computed from a
    network has ``network``. At the toys' scale the paper's rows are left out: toys cannot be compared with them.

    Raises :class:`UserError` for a run, sampler or milestone that is not defined.
    """
    table = copy.deepcopy(table)
    if scale.overlay:
        _leave_only_toys(table, scale)
    if "architecture" in table:
        table["architecture"]["network"] = scale.network(f"table {name}", table["architecture"].pop("run"))
    for row in table["rows"]:
        place = f"table {name}, row {row['name']!r}"
        if "computed" in row:
            row["network"] = scale.network(place, row.pop("computed"))
        row["scores"] = _scores(place, row.pop("ours", {}), table["columns"], scale)
    if scale.overlay and any(row["scores"] for row in table["rows"]):
        _name_toy_data(table, scale.overlay["texts"])
    return table


def _leave_only_toys(table: dict, scale: Scale) -> None:
    """Reduce a table to our rows, none of which is compared with the paper, and say so."""
    if "architecture" not in table:  # whose network is not that of a toy
        table["rows"] = [row for row in table["rows"] if "ours" in row or "computed" in row]
    table["notes"] += TOY_NOTES
    for row in table["rows"]:
        row.pop("against", None)
        if any(scale.is_published(source["run"]) for source in row.get("ours", {}).values()):
            row["name"] += " (as a toy: trained)"


def _name_toy_data(table: dict, texts: dict[str, str]) -> None:
    """Replace the names of data sets and published weights in title, headings and row names: toys show digits."""

    def renamed(text: str) -> str:
        for name, toy in texts.items():
            text = text.replace(name, toy)
        return text

    table["title"] = f"Toy digits: {renamed(table['title'])}"
    for column in table["columns"]:
        column["heading"], column["group"] = renamed(column["heading"]), renamed(column["group"])
    for row in table["rows"]:
        row["name"] = renamed(row["name"])


def _scores(place: str, ours: dict, columns: list[dict], scale: Scale) -> dict[str, str]:
    """The score file of each column with a metric, for a row's runs by group of columns."""
    found = {}
    for group, source in ours.items():
        samples = scale.samples(place, source["run"], source.get("sampler"), source.get("milestone"))
        for column in columns:
            if column["group"] == group and "metric" in column:
                found[column["key"]] = samples.score(column["protocol"]).removeprefix(RESULTS)
    return found
