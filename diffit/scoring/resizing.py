"""How protocols bring images to the size that Inception takes."""

from collections.abc import Callable

import numpy as np

SIZE = 299  # height and width of what Inception takes

Resize = Callable[[np.ndarray], np.ndarray]


def pillow_bicubic() -> Resize:
    """clean-fid's resizer: Pillow's bicubic on float channels, antialiased and not rounded (Parmar et al. 2022)."""
    from cleanfid.resize import build_resizer  # here, since clean-fid takes seconds to import

    return build_resizer("clean")


def tensorflow_bilinear() -> Resize:
    """TensorFlow 1's bilinear resize, as it stands inside the graph of FID's Inception (align_corners off).

    Output pixel i lies at i · input / output, without the half pixel of later versions, and mixes the two nearest
    input pixels only: large images are not antialiased. Along each row first, in float32, as TensorFlow's kernel does;
    torch-fidelity's version, which is exact to TensorFlow's on a CPU, gives the same bits. NVIDIA's file samples the
    same places by ``grid_sample``, which rounds otherwise.
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
    """For each of the 299 places along an axis of ``size`` pixels: the pixel before, the one after, how far between."""
    place = np.arange(SIZE, dtype=np.float32) * (np.float32(size) / np.float32(SIZE))
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, size - 1), place - before.astype(np.float32)
