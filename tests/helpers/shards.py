"""Samples of tiny random pictures, as they are written to tars."""

from collections.abc import Iterable, Iterator

import numpy as np

from diffit.data.images import png
from diffit.store.members import encode_npy


def picture(i: int) -> np.ndarray:
    """Picture ``i``, uint8 [6, 5, 3]."""
    return np.random.default_rng(i).integers(0, 256, (6, 5, 3), np.uint8)


def samples(numbers: Iterable[int], extension: str = "npy") -> Iterator[tuple[str, dict[str, bytes]]]:
    """Pictures with these numbers, of class i mod 10."""
    encode = encode_npy if extension == "npy" else png
    for i in numbers:
        yield f"{i:08d}", {extension: encode(picture(i)), "cls": str(i % 10).encode()}
