"""Write a table of the paper, the paper's rows beside ours, as CSV, Markdown and LaTeX.

    python -m diffit.paper.table TABLE_JSON OUT.csv

TABLE_JSON is a table of workflow/tables as :func:`diffit.paper.table_files.resolve` resolves it. A cell of ours shows
the value, the standard deviation if several sets were scored, and the difference to the paper's row. A value further
than three standard deviations from the paper's is marked. Values are compared only if they are the same statistic of
the sets. A missing number shows as a gap with its reason.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from diffit.cli import Parser, UserError, run_command
from diffit.nets.inspect import parts, size
from diffit.paper.networks import expand_network
from diffit.registry.arguments import described
from diffit.store import files

GAP = "–"
BIASED, OUTSIDE, SKIPPED = "†", "*", "‡"
NUMERIC = {"metric", "computed", "saving"}  # a column with one of these keys holds numbers
TOLERANCE = 3  # standard deviations within which a value agrees with the paper's
MARKS = {
    BIASED: "fewer images than features: biased, not comparable with published numbers",
    OUTSIDE: f"further from the paper's value than {TOLERANCE} standard deviations of the sets",
    SKIPPED: "trained without the updates of steps that were not finite; the score file names them",
}

# The schema of a resolved table, which its commands read; the table has been checked before it was resolved.
RESOLVED = {
    "type": "object",
    "required": ["title", "name", "columns", "rows", "notes"],
    "properties": {
        "columns": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["key", "heading", "group", "digits"]},
        },
        "rows": {"type": "array", "items": {"type": "object", "required": ["name", "cells", "scores"]}},
        "notes": {"type": "array", "items": {"type": "string"}},
        "figure": {"type": "object", "required": ["x", "y", "together"]},
    },
}


@dataclass
class Cell:
    """One number or text of a table, and where it comes from."""

    value: float | str | None = None
    digits: int = 2
    difference: float | None = None  # ours − paper
    std: float | None = None
    biased: bool = False
    score: str = ""  # its score file, relative to results/
    reason: str = ""  # why there is no value
    marks: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The cell as Markdown text, before links."""
        if self.value is None:
            return GAP
        if isinstance(self.value, str):
            return self.value
        number = f"{self.value:.{self.digits}f}"
        spread = f" ± {self.std:.{self.digits}f}" if self.std is not None else ""
        beside = f" ({self.difference:+.{self.digits}f})" if self.difference is not None else ""
        return f"{number}{spread}{beside}{''.join(self.marks)}"


def fill(table: dict, results: Path) -> list[dict[str, Cell]]:
    """The cells of each row by column key, in the table's order."""
    scores = {
        path: files.read_json(results / path, "delete it and run the workflow again")
        for row in table["rows"]
        for path in row["scores"].values()
    }
    rows = [_row(row, table["columns"], scores) for row in table["rows"]]
    by_name = {row["name"]: cells for row, cells in zip(table["rows"], rows, strict=True)}
    for row, cells in zip(table["rows"], rows, strict=True):
        for column in table["columns"]:
            if "against" in row and column["key"] in row["scores"]:
                cell = cells[column["key"]]
                _compare(cell, by_name[row["against"]][column["key"]], column, scores[cell.score])
    for column in table["columns"]:
        if "saving" in column:
            own = by_name[table["saving_of"]]
            for row, cells in zip(table["rows"], rows, strict=True):
                least, base = own[column["saving"]].value, cells[column["saving"]].value
                stated = column["key"] in row["cells"]  # as a number or as a gap
                if cells is not own and base is not None and not stated:
                    cells[column["key"]] = Cell(100 * (base - least) / base, column["digits"])
    return rows


def sizes(spec: dict) -> dict[str, float]:
    """The numbers that are computed from a network: millions of parameters, billions of multiply-adds."""
    found = size(spec)
    return {
        "parameters": found.parameters / 1e6,
        "multiply_adds": found.flops / 2e9,
        "linear_multiply_adds": found.linear_flops / 2e9,
    }


def _row(row: dict, columns: list[dict], scores: dict) -> dict[str, Cell]:
    cells, computed = {}, sizes(expand_network(row["network"])) if "network" in row else {}
    for column in columns:
        key, digits = column["key"], column["digits"]
        if key in row["scores"]:
            cells[key] = _scored(column, row["scores"][key], scores)
        elif "computed" in column and column["computed"] in computed:
            cells[key] = Cell(computed[column["computed"]], digits)
        else:
            value = row["cells"].get(key)
            plain = not NUMERIC & column.keys() and isinstance(value, int | float)
            # Numbers of the paper without decimals are shown as printed.
            cells[key] = Cell(f"{value:g}" if plain else value, 0 if isinstance(value, int) else digits)
    return cells


def _scored(column: dict, path: str, scores: dict) -> Cell:
    score = scores[path]
    if score["protocol"] != column["protocol"]:
        raise UserError(
            f"{path} has the protocol {score['protocol']}, but its column has {column['protocol']}; score it again"
        )
    metric = next((m for m in score["metrics"] if m["name"] == column["metric"]), None)
    if metric is None:
        return Cell(score=path, reason=f"{column['protocol']} has no {column['metric']}")
    if metric["value"] is None:
        return Cell(score=path, reason=metric["note"])
    marks = [BIASED] if metric["biased"] else []
    marks += [SKIPPED] if score.get("samples", {}).get("skipped_steps") else []
    return Cell(metric["value"], column["digits"], std=metric["std"], biased=metric["biased"], score=path, marks=marks)


def _compare(cell: Cell, paper: Cell, column: dict, score: dict) -> None:
    """Set the difference to the paper's value if both are numbers and the same statistic."""
    metric = next((m for m in score["metrics"] if m["name"] == column["metric"]), None)
    alike = metric and metric["statistic"] == column.get("statistic", "single")
    if cell.value is None or paper.value is None or not alike:
        return
    cell.difference = cell.value - float(paper.value)
    # The paper's value is rounded, so up to half a unit of its last digit does not count.
    if cell.std is not None and abs(cell.difference) > TOLERANCE * cell.std + 0.5 * 10**-cell.digits:
        cell.marks.append(OUTSIDE)


# ---------------------------------------------------------------------------------------------------- as files


def as_frame(table: dict, rows: list[dict[str, Cell]]) -> pd.DataFrame:
    """The table with further columns for the difference, standard deviation, bias and score file of each number."""
    lines = []
    for row, cells in zip(table["rows"], rows, strict=True):
        line = {table["name"]: row["name"], "source": "paper" if not (row["scores"] or "network" in row) else "here"}
        for column in table["columns"]:
            key, cell = column["key"], cells[column["key"]]
            line[key] = cell.value
            if "metric" in column:
                facts = asdict(cell)
                names = ("difference", "std", "biased", "score", "reason")
                line |= {f"{key}_{name}": facts[name] if cell.score else None for name in names}
                line[f"{key}_protocol"] = column["protocol"] if cell.score else None
        lines.append(line)
    return pd.DataFrame(lines)


def headings(table: dict) -> list[str]:
    """The heading of each column, preceded by its group."""
    return [
        column["heading"] if column["group"] in ("", column["heading"]) else f"{column['group']} {column['heading']}"
        for column in table["columns"]
    ]


def _notes(table: dict, rows: list[dict[str, Cell]]) -> list[str]:
    cells = [cell for row in rows for cell in row.values()]
    marks = [f"{mark} {said}." for mark, said in MARKS.items() if any(mark in cell.marks for cell in cells)]
    shown = ["In brackets: ours − the paper's."] if any(cell.difference is not None for cell in cells) else []
    reasons = dict.fromkeys(f"{GAP} {cell.reason}." for cell in cells if cell.reason)
    protocols = dict.fromkeys(c["protocol"] for c in table["columns"] if "metric" in c)
    ours = [f"Ours under the protocol {' and '.join(protocols)} (docs/scores.md)."] if protocols else []
    return [*shown, *marks, *reasons, *ours, *(note if note.endswith(".") else f"{note}." for note in table["notes"])]


def as_markdown(table: dict, rows: list[dict[str, Cell]], up: str) -> str:
    """The table with its footnotes; our numbers link to their score files by the path prefix ``up``."""

    def shown(cell: Cell) -> str:
        return f"[{cell.text()}]({up}{cell.score})" if cell.score else cell.text().replace("|", "\\|")

    lines = [[table["name"], *headings(table)]]
    lines += [
        [row["name"], *(shown(cells[column["key"]]) for column in table["columns"])]
        for row, cells in zip(table["rows"], rows, strict=True)
    ]
    frame = pd.DataFrame(lines[1:], columns=lines[0])
    notes = "\n".join(f"- {note}" for note in _notes(table, rows))
    return f"# {table['title']}\n\n{frame.to_markdown(index=False, disable_numparse=True)}\n\n{notes}\n"


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "×": r"$\times$", "±": r"$\pm$",
    "†": r"$^\dagger$", "‡": r"$^\ddagger$", "*": r"$^*$", "²": "$^2$", "→": r"$\to$",
}  # fmt: skip


def escaped(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(LATEX.get(character, character) for character in text)


def as_latex(table: dict, rows: list[dict[str, Cell]]) -> str:
    """A table environment in the style of booktabs, with the groups of columns above their headings."""
    columns = table["columns"]
    runs: list[list] = []  # consecutive columns of one group
    for column in columns:
        if runs and runs[-1][0] == column["group"]:
            runs[-1][1] += 1
        else:
            runs.append([column["group"], 1])
    ungrouped = all(group in ("", column["heading"]) for column, (group, _) in zip(columns, runs, strict=False))
    groups = " & ".join(["", *(rf"\multicolumn{{{count}}}{{c}}{{{escaped(group)}}}" for group, count in runs)]) + r" \\"
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table['title'])}}}",
        rf"\begin{{tabular}}{{l{''.join('r' if NUMERIC & column.keys() else 'l' for column in columns)}}}",
        r"\toprule",
        *([] if ungrouped and len(runs) == len(columns) else [groups]),
        " & ".join(escaped(text) for text in [table["name"], *(c["heading"] for c in columns)]) + r" \\",
        r"\midrule",
    ]
    ours_before = False
    for row, cells in zip(table["rows"], rows, strict=True):
        if row["scores"] and not ours_before:
            ours_before = True
            lines.append(r"\midrule")
        texts = [row["name"], *(cells[column["key"]].text() for column in columns)]
        lines.append(" & ".join(map(escaped, texts)) + r" \\")
    notes = [rf"\\ \footnotesize {escaped(note)}" for note in _notes(table, rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"]) + "\n"


def architecture(table: dict) -> dict:
    """The table with one row per component of its network.

    The cells of the table's own rows, the paper's components, are put beside those of ours in the same order. They are
    left out if the network has another number of components, because they then describe another network.
    """
    found = parts(expand_network(table["architecture"]["network"]), table["architecture"]["part"])
    printed = [row["cells"] for row in table["rows"]]
    if len(printed) != len(found):
        printed = [{}] * len(found)
    rows = [
        {"name": name, "cells": {**cells, "size": size}, "scores": {}}
        for (name, size), cells in zip(found, printed, strict=True)
    ]
    return {**table, "rows": rows}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "table",
        type=described("the table", lambda: RESOLVED, "workflow/schemas/table.schema.yaml"),
        help="the table as a JSON object: title, name, columns, rows with their scores, notes",
    )
    parser.add_argument("out", type=Path, help="the CSV file to write; .md and .tex are written beside it")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="folder of the scores that the table names (default: %(default)s)",
    )
    arguments = parser.parse_args()
    table, out = arguments.table, arguments.out
    if "architecture" in table:
        table = architecture(table)
    rows = fill(table, arguments.results)
    with files.atomic(out.with_suffix(".tex")) as temporary:
        temporary.write_text(as_latex(table, rows))
    with files.atomic(out.with_suffix(".md")) as temporary:
        temporary.write_text(as_markdown(table, rows, "../"))
    with files.atomic(out) as temporary:
        as_frame(table, rows).to_csv(temporary, index=False)


if __name__ == "__main__":
    run_command(main)
