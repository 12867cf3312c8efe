"""figure: images of the paper's figures, by seed and by class, as one picture.

    python -m diffit.paper.image_grid FIGURE_JSON OUT.png SAMPLES…

Each folder of samples gives ``rows`` × ``columns`` images in order of their seeds, those of ``classes`` alone where the
figure names some; the folders stand below each other.
"""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from diffit.cli import Parser, UserError, json_argument, run
from diffit.store import files, tars

LEAST_PIXELS = 48  # of a side; smaller images are enlarged smoothly, as eyes like them


def panel(folder: Path, rows: int, columns: int, classes: list[int] | None = None) -> np.ndarray:
    """A grid of the first images of a folder by seed: uint8 [H, W, 3].

    Raises :class:`UserError` where there are too few.
    """
    wanted = rows * columns
    images = (image for _key, image, label in tars.read_images(folder) if classes is None or label in classes)
    found = [Image.fromarray(image) for image in islice(images, wanted)]
    if len(found) < wanted:
        of = f" of the classes {classes}" if classes else ""
        raise UserError(f"{folder} holds {len(found)} images{of}, and the figure shows {wanted}; sample more")
    side = max(LEAST_PIXELS, found[0].width)
    tiles = np.stack([np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in found])
    grid = make_grid(torch.from_numpy(tiles).permute(0, 3, 1, 2), nrow=columns, padding=2, pad_value=255)
    return grid.permute(1, 2, 0).numpy()


def stacked(panels: list[np.ndarray]) -> np.ndarray:
    """Panels below each other, the narrower ones on white."""
    width = max(one.shape[1] for one in panels)
    return np.concatenate(
        [np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in panels]
    )


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("figure", type=json_argument, help="rows, columns and classes (or null) as a JSON object")
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument("samples", type=Path, nargs="+", help="folders of generated images")
    arguments = parser.parse_args()
    spec = arguments.figure
    panels = [panel(folder, spec["rows"], spec["columns"], spec["classes"]) for folder in arguments.samples]
    with files.atomic(arguments.out) as temporary:
        Image.fromarray(stacked(panels)).save(temporary, format="png")


if __name__ == "__main__":
    run(main)
