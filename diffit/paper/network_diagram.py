"""Draw the architecture of a run's network as boxes with their output sizes (Figures 3, 4 and S.1).

    python -m diffit.paper.network_diagram OUT.png NETWORK_JSON

The boxes and sizes are derived from the network itself.
"""

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from diffit.cli import Parser, run_command
from diffit.nets.inspect import parts
from diffit.paper.networks import NETWORK, expand_network
from diffit.registry.arguments import described
from diffit.store import files

COLORS = {"DiffiT": "#fff1d6", "Input": "#f4f4f4"}
WIDTH, HEIGHT, GAP = 2.6, 0.62, 0.34


def box(axis: Axes, x: float, y: float, name: str, size: str) -> None:
    """Draw a component and its output size; (x, y) is the box's lower left corner."""
    color = next((color for start, color in COLORS.items() if name.startswith(start)), "#e4eefb")
    axis.add_patch(plt.Rectangle((x, y), WIDTH, HEIGHT, facecolor=color, edgecolor="#555"))
    axis.text(x + WIDTH / 2, y + HEIGHT / 2, f"{name}\n{size}", ha="center", va="center", fontsize=8)


def column(axis: Axes, x: float, listed: list[tuple[str, str]], top: float, step: int) -> list[float]:
    """Draw components joined by arrows, downwards (``step`` −1) or upwards (``step`` 1); return the y of each box."""
    places = [top + step * number * (HEIGHT + GAP) for number in range(len(listed))]
    for (name, size), y in zip(listed, places, strict=True):
        box(axis, x, y, name, size)
    for before, after in itertools.pairwise(places):
        edges = (before, after + HEIGHT) if step < 0 else (before + HEIGHT, after)
        axis.annotate("", (x + WIDTH / 2, edges[1]), (x + WIDTH / 2, edges[0]), arrowprops={"arrowstyle": "->"})
    return places


def _arrow(axis: Axes, left: float, right: float, **style) -> None:
    """Draw an arrow from the encoder's box at y = ``left`` to the decoder's box at y = ``right``."""
    ends = (2 * WIDTH, right + HEIGHT / 2), (WIDTH, left + HEIGHT / 2)
    axis.annotate("", *ends, arrowprops={"arrowstyle": "->", **style})


def draw(spec: dict, out: Path) -> None:
    """Write the diagram: encoder and decoder with skip connections for the U-shaped network, one column for others."""
    listed = parts(spec, "encoder")
    u_shaped = spec["kind"] == "ushaped"
    figure, axis = plt.subplots(figsize=(7 if u_shaped else 4, 0.72 * len(listed) + 0.6), layout="constrained")
    places = column(axis, 0, listed, 0, -1)
    if u_shaped:
        decoder = parts(spec, "decoder")[1:]
        rising = column(axis, 2 * WIDTH, decoder, places[-1], 1)
        _arrow(axis, places[-1], places[-1])
        for part, y in zip(listed, places, strict=True):
            ends = [to for other, to in zip(decoder, rising, strict=True) if other == part]
            if part[0].startswith("DiffiT") and ends:
                _arrow(axis, y, ends[0], ls="--")
    axis.set_axis_off()
    axis.autoscale_view()
    with files.atomic(out) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument(
        "network",
        type=described("the network", lambda: NETWORK, "diffit/paper/scale.py, network,"),
        help="runs with one run, datasets and vaes as in the configuration, as a JSON object",
    )
    arguments = parser.parse_args()
    draw(expand_network(arguments.network), arguments.out)


if __name__ == "__main__":
    run_command(main)
