"""How PyTorch computes in float32, and autocast to the precision that the configuration names."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from diffit.numerics.precision import PRECISIONS


@contextmanager
def float32(tf32: bool = False) -> Iterator[None]:
    """Context with exact and deterministic float32 products on GPUs, or TF32 products if ``tf32`` is set.

    PyTorch's default is TF32 for convolutions.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def autocast(precision: str, device: str) -> Iterator[None]:
    """Context with autocast to a precision, given by its name in the registry, on a device type (``cpu``, ``cuda``)."""
    dtype = PRECISIONS[precision].autocast
    with torch.autocast(device, getattr(torch, dtype or "bfloat16"), enabled=dtype is not None):
        yield
