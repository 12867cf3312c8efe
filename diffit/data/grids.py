"""Grids of generated images, drawn as one image."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from diffit.cli import UserError
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
