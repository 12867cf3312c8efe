"""Draw samples as a grid, one panel per folder of samples, panels below each other.

    python -m diffit.paper.image_grid OUT.png GRID_JSON SAMPLES…

A panel shows the first ``rows`` × ``columns`` images of its folder in the order of their seeds. If ``classes`` is not
null, only images of these classes count.
"""

from pathlib import Path

from PIL import Image

from diffit.cli import Parser, run_command
from diffit.data.grids import panel, stacked
from diffit.registry import COUNT, NATURAL, object_schema
from diffit.registry.arguments import described
from diffit.store import files

CLASSES = {"type": ["array", "null"], "minItems": 1, "items": NATURAL}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument(
        "grid",
        type=described(
            "the grid", lambda: object_schema({"rows": COUNT, "columns": COUNT, "classes": CLASSES}), "--help"
        ),
        help="rows, columns and classes (or null) as a JSON object",
    )
    parser.add_argument(
        "samples", type=Path, nargs="+", help="folders of samples, results/samples/{run}/{kimg}/{sampler}"
    )
    arguments = parser.parse_args()
    grid = arguments.grid
    panels = [panel(folder, grid["rows"], grid["columns"], grid["classes"]) for folder in arguments.samples]
    with files.atomic(arguments.out) as temporary:
        Image.fromarray(stacked(panels)).save(temporary, format="png")


if __name__ == "__main__":
    run_command(main)
