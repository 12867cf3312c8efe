"""The paper's numbers, cell by cell: workflow/tables and the runs against what the paper prints.

tests/helpers/paper_facts.py was read from the published text. Where the converted text kept a table, it is compared
with that text, too.
"""

import re

import pytest
import yaml
from helpers.paper_facts import CORRECTED, PRINTED
from helpers.places import REPOSITORY

from diffit.config.toy_runs import complete
from diffit.paper import table_files

TABLES = table_files.read_all(REPOSITORY)
GAP = "-"

# Begin of a table's first line in the converted text, and the number of lines before its first row.
HEADERS = {
    "table1": ("Model | Class | ImageNet-256", 2),
    "table2": ("Method | Class | Space Type", 2),
    "table3": ("Time Dimension | Dimension", 1),
    "table4": ("Config | Encoder | Decoder", 1),
    "table5": ("Model | TMSA | FID", 1),
    "table6": ("Config | Component", 1),
    "table7": ("Model | TMSA Design", 1),
    "table8": ("Model | Time Embedding", 1),
    "tableS1": ("Model | Class | ImageNet-256", 2),
}


def cited(name: str) -> dict[str, dict[str, str]]:
    """The paper's rows in a table of workflow/tables, with numbers as the table prints them; without gaps."""
    columns = {column["key"]: column for column in TABLES[name]["columns"]}
    rows = {}
    for row in TABLES[name]["rows"]:
        if "ours" in row or "computed" in row:
            continue
        rows[row["name"]] = {
            key: _printed(value, columns[key]) for key, value in row["cells"].items() if value is not None
        }
    return rows


def _printed(value: float | str, column: dict) -> str:
    if not isinstance(value, float):
        return str(value)
    is_measured = column.keys() & {"metric", "computed", "saving"}
    return f"{value:.{column['digits']}f}" if is_measured else f"{value:g}"


def converted(shared, name: str) -> list[list[str]]:
    """The cells of each row of a table in the converted text."""
    (text,) = [found.read_text() for found in (shared / "paper").glob("*.txt")]
    begin, skipped = HEADERS[name]
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(begin)]
    first = starts[1 if name == "tableS1" else 0] + skipped
    rows = []
    for line in lines[first:]:
        if not line.rstrip().endswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.split("|") if cell.strip()])
    raise AssertionError(f"{name} has no end")


@pytest.mark.parametrize("name", TABLES)
def test_every_cited_cell_is_the_papers(name):
    """Each number in its table, row and column; no row and no cell is missing or added."""
    expected = {
        row: {key: CORRECTED.get((name, row, key), value) for key, value in cells.items() if value != GAP}
        for row, cells in PRINTED[name].items()
    }
    assert cited(name) == expected
    assert list(cited(name)) == list(expected)


def test_all_tables_of_numbers_are_compared():
    assert PRINTED.keys() == TABLES.keys()


@pytest.mark.parametrize("name", HEADERS)
def test_the_facts_are_those_of_the_converted_text(name, shared):
    rows = converted(shared, name)
    assert len(rows) == len(PRINTED[name])
    for found, (row, cells) in zip(rows, PRINTED[name].items(), strict=True):
        if name != "table3":  # its rows have no names
            label, *found = found
            assert row.startswith(label)
        assert found == list(cells.values()), row


def test_the_facts_outside_of_tables_are_those_of_the_converted_text(shared):
    (text,) = [found.read_text() for found in (shared / "paper").glob("*.txt")]
    best = re.search(r"guidance scales of ([\d.]+) and ([\d.]+) correspond to best FID scores of ([\d.]+) and", text)
    fid512 = re.search(rf"{best[0]} ([\d.]+) for ImageNet-256 and ImageNet-512", text)[1]
    small, large = PRINTED["figure7a"].values()
    assert best.groups() == (small["weight"], large["weight"], small["fid256"]) and fid512 == large["fid512"]
    window = {
        "FFHQ-64": re.search(r"For FFHQ-64 dataset, .*? local window size of (\d)", text)[1],
        "CIFAR-10": re.search(r"For CIFAR-10 dataset, .*? local windows with size (\d)", text)[1],
    }
    assert PRINTED["figure8"][window["CIFAR-10"]]["cifar10"] == PRINTED["table2"]["DiffiT (Ours)"]["cifar10"]
    assert PRINTED["figure8"][window["FFHQ-64"]]["ffhq64"] == PRINTED["table2"]["DiffiT (Ours)"]["ffhq64"]


def test_the_papers_percentages_follow_from_its_table_9():
    """Of parameters relative to the other model, of FLOPs relative to DiffiT; both cut off after two decimals."""
    ours = PRINTED["table9"]["DiffiT"]
    for name, cells in PRINTED["table9"].items():
        if name != "DiffiT":
            fewer = {key: int(cells[key]) - int(ours[key]) for key in ("parameters", "flops")}
            parameters = 10_000 * fewer["parameters"] // int(cells["parameters"])
            flops = 10_000 * fewer["flops"] // int(ours["flops"])
            assert (cells["fewer_parameters"], cells["fewer_flops"]) == (f"{parameters / 100}", f"{flops / 100}")


RUNS = {
    "imagenet256": ("table1", "DiffiT", "256"),
    "imagenet512": ("table1", "DiffiT", "512"),
    "imagenet256_released": ("table1", "DiffiT", "256"),
    "imagenet512_released": ("table1", "DiffiT", "512"),
    "cifar10": ("table2", "DiffiT (Ours)", "cifar10"),
    "cifar10_edm_length": ("table2", "DiffiT (Ours)", "cifar10"),
    "ffhq64": ("table2", "DiffiT (Ours)", "ffhq64"),
    "ffhq64_edm_length": ("table2", "DiffiT (Ours)", "ffhq64"),
}
METRICS = {"fid": "fid", "inception_score": "is", "precision": "precision", "recall": "recall"}


def test_the_published_numbers_of_runs_are_the_papers():
    config = complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)
    stated = {
        name: {metric: f"{run['paper'][metric]:.2f}" for metric in METRICS if metric in run["paper"]}
        for name, run in config["runs"].items()
    }
    expected = {}
    for name, (table, row, place) in RUNS.items():
        cells = PRINTED[table][row]
        keys = {"fid": place} if table == "table2" else {metric: key + place for metric, key in METRICS.items()}
        expected[name] = {metric: cells[key] for metric, key in keys.items()}
        assert config["runs"][name]["paper"]["source"] == table.replace("table", "Table ")
    assert {name: numbers for name, numbers in stated.items() if numbers} == expected
