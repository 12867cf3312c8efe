"""Draw the training curve of a run from its log."""

from pathlib import Path

import matplotlib
import pandas as pd

from diffit.cli import Parser, UserError, run
from diffit.runs import metrics_log
from diffit.store import files

matplotlib.use("agg")
from matplotlib import pyplot


def draw_curve(name: str, log: list[dict], out: Path) -> None:
    """Training loss over images seen, each logged mean and a running median, on logarithmic loss."""
    if not log:
        raise UserError(f"the log of {name} is empty, so there is no training curve to draw; train at least one step")
    frame = pd.DataFrame(log)
    kimg = frame["images"] / 1000
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(kimg, frame["loss"], color="0.75", linewidth=0.8, label="mean of 50 steps")
    axes.plot(kimg, frame["loss"].rolling(9, center=True, min_periods=1).median(), label="running median")
    axes.set(xlabel="thousand images seen", ylabel="loss a value", yscale="log", title=f"Training of {name}")
    axes.legend(frameon=False)
    with files.atomic(out) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("journal", type=Path, help="results/runs/{run}/state/log.jsonl")
    parser.add_argument("out", type=Path, help="the picture to write")
    arguments = parser.parse_args()
    draw_curve(arguments.journal.absolute().parents[1].name, metrics_log.read(arguments.journal), arguments.out)


if __name__ == "__main__":
    run(main)
