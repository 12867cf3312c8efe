"""Draw the training curve of a run from its log.

python -m diffit.paper.training_curve LOG.jsonl OUT.png
"""

from pathlib import Path

import matplotlib
import pandas as pd

from diffit.cli import Parser, UserError, run_command
from diffit.runs import metrics_log
from diffit.store import files

matplotlib.use("agg")
from matplotlib import pyplot


def draw_curve(name: str, log: list[dict], out: Path) -> None:
    """Write a plot of the loss over the images seen: logged means and their running median, on a logarithmic axis."""
    if not log:
        raise UserError(f"the log of {name} is empty, so its training curve cannot be drawn; train at least one step")
    frame = pd.DataFrame(log)
    kimg = frame["images"] / 1000
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(kimg, frame["loss"], color="0.75", linewidth=0.8, label="mean of 50 steps")
    axes.plot(kimg, frame["loss"].rolling(9, center=True, min_periods=1).median(), label="running median")
    axes.set(xlabel="thousand images seen", ylabel="loss per value", yscale="log", title=f"Training of {name}")
    axes.legend(frameon=False)
    with files.atomic(out) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("log_file", type=Path, help="results/runs/{run}/state/log.jsonl")
    parser.add_argument("out", type=Path, help="the picture to write")
    arguments = parser.parse_args()
    draw_curve(arguments.log_file.absolute().parents[1].name, metrics_log.read(arguments.log_file), arguments.out)


if __name__ == "__main__":
    run_command(main)
