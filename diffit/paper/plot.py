"""Plot columns of a table against each other, our numbers as lines and the paper's as stars.

python -m diffit.paper.plot TABLE_JSON OUT.png
"""

from pathlib import Path

import matplotlib.pyplot as plt

from diffit.cli import Parser, run_command
from diffit.paper.table import RESOLVED, Cell, fill, headings
from diffit.registry.arguments import described
from diffit.store import files

STYLES = {True: {"marker": "o"}, False: {"marker": "*", "ls": "", "ms": 12}}  # our numbers, the paper's


def draw(table: dict, rows: list[dict[str, Cell]], out: Path) -> None:
    """Write the plot that the table's ``figure`` describes: the columns ``y`` over the column ``x``."""
    x, ys, together = (table["figure"][key] for key in ("x", "y", "together"))
    plots = 1 if together else len(ys)
    figure, axes = plt.subplots(1, plots, figsize=(max(5.5, 4.6 * plots), 3.4), layout="constrained", squeeze=False)
    named = dict(zip([column["key"] for column in table["columns"]], headings(table), strict=True))
    for number, key in enumerate(ys):
        axis = axes[0, 0 if together else number]
        for ours, style in STYLES.items():
            points = [
                (float(cells[x].value), cells[key].value)
                for cells in rows
                if isinstance(cells[key].value, float | int) and bool(cells[key].score) == ours
            ]
            if points:
                label = f"{named[key]}, {'here' if ours else 'paper'}"
                axis.plot(*zip(*sorted(points), strict=True), label=label, **style)
        axis.set(xlabel=named[x], ylabel="" if together else named[key])
        axis.legend(fontsize="small")
    figure.suptitle(table["title"])
    with files.atomic(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "table",
        type=described(
            "the table",
            lambda: {**RESOLVED, "required": [*RESOLVED["required"], "figure"]},
            "workflow/schemas/table.schema.yaml",
        ),
        help="the table as a JSON object: title, name, columns, rows with their scores, notes",
    )
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="folder of the scores that the table names (default: %(default)s)",
    )
    arguments = parser.parse_args()
    draw(arguments.table, fill(arguments.table, arguments.results), arguments.out)


if __name__ == "__main__":
    run_command(main)
