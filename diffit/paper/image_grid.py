"""Draw samples as a grid, one panel per folder of samples, panels below each other.

    python -m diffit.paper.image_grid OUT.png GRID_JSON SAMPLES…

A panel shows the first ``rows`` × ``columns`` images of its folder in the order of their seeds. If ``classes`` is not
null, only images of these classes count.
"""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from diffit.cli import Parser, UserError, json_argument, run_command
from diffit.store import files
from diffit.store.manifest import read_images

LEAST_PIXELS = 48  # images with shorter sides are enlarged by bicubic interpolation


def panel(folder: Path, rows: int, columns: int, classes: list[int] | None = None) -> np.ndarray:
    """The first images of a folder by seed, as a grid: uint8 [H, W, 3].

    Raises :class:`UserError` if the folder holds too few of them.
    """
    wanted = rows * columns
    images = (image for _key, image, label in read_images(folder) if classes is None or label in classes)
    found = [Image.fromarray(image) for image in islice(images, wanted)]
    if len(found) < wanted:
        of = f" of the classes {classes}" if classes else ""
        raise UserError(f"{folder} holds {len(found)} images{of}, but the figure shows {wanted}; sample more")
    side = max(LEAST_PIXELS, found[0].width)
    tiles = np.stack([np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in found])
    grid = make_grid(torch.from_numpy(tiles).permute(0, 3, 1, 2), nrow=columns, padding=2, pad_value=255)
    return grid.permute(1, 2, 0).numpy()


def stacked(panels: list[np.ndarray]) -> np.ndarray:
    """Panels below each other, narrower ones padded with white on the right."""
    width = max(one.shape[1] for one in panels)
    return np.concatenate(
        [np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in panels]
    )


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument("grid", type=json_argument, help="rows, columns and classes (or null) as a JSON object")
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
