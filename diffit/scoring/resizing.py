"""The resizers of the protocols, which bring images to the input size of Inception."""

from collections.abc import Callable

import numpy as np

SIZE = 299  # height and width of Inception's input

Resize = Callable[[np.ndarray], np.ndarray]


def pillow_bicubic() -> Resize:
    """clean-fid's resizer (Parmar et al. 2022): Pillow's bicubic filter on float channels, antialiased, not rounded."""
    from cleanfid.resize import build_resizer  # here, because clean-fid takes seconds to import

    return build_resizer("clean")


def tensorflow_bilinear() -> Resize:
    """TensorFlow 1's bilinear resize with ``align_corners=False``, which is part of the graph of FID's Inception.

    Output pixel i is at position i · input / output, without the half-pixel offset of later versions. It interpolates
    only between the two nearest input pixels, so that large images are not antialiased. Rows are interpolated first, in
    float32, like in TensorFlow's kernel. The result equals bit for bit that of torch-fidelity, which is exact to
    TensorFlow on a CPU. NVIDIA's file samples the same positions with ``grid_sample``, which rounds differently.
    """
    return _legacy_bilinear


def _legacy_bilinear(image: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    image = image.astype(np.float32)  # H W 3
    left, right, x = _neighbours(width)
    rows = image[:, left] + (image[:, right] - image[:, left]) * x[:, None]  # H 299 3
    top, bottom, y = _neighbours(height)
    return rows[top] + (rows[bottom] - rows[top]) * y[:, None, None]  # 299 299 3


def _neighbours(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For the 299 positions along an axis of ``size`` pixels: the pixel before each, the next one, and its weight."""
    place = np.arange(SIZE, dtype=np.float32) * (np.float32(size) / np.float32(SIZE))
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, size - 1), place - before.astype(np.float32)
