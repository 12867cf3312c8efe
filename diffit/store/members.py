"""Members of a tar by extension: ``png``, ``npy`` and ``cls`` (a class number in decimal digits)."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

_NPY_PREFIX = 10  # bytes of magic string, version and header length at the start of an .npy file


def encode_npy(array: np.ndarray) -> bytes:
    """The content of the ``.npy`` file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _decode_png(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.mode != "RGB":
            raise ValueError(f"mode {image.mode} instead of RGB")
        return np.array(image)


def _decode_npy(data: bytes) -> np.ndarray:
    """Decode like ``np.load`` without pickles. Ten times faster if many members have the same header."""
    dtype, fortran, shape, start = _npy_header(data[: _NPY_PREFIX + int.from_bytes(data[8:_NPY_PREFIX], "little")])
    array = np.frombuffer(data, dtype, offset=start)
    return array.reshape(shape, order="F" if fortran else "C")


@cache
def _npy_header(header: bytes) -> tuple[np.dtype, bool, tuple[int, ...], int]:
    """Element type, Fortran order, shape and length of an ``.npy`` header of version 1."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an .npy array of version 1")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("an .npy array of objects")
    return dtype, fortran, shape, file.tell()


# Decoders raise ValueError, OSError, EOFError or SyntaxError for damaged data.
DECODERS: dict[str, Callable[[bytes], Any]] = {"png": _decode_png, "npy": _decode_npy, "cls": int}
