"""How PyTorch computes with float32, and under which autocast."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from diffit.numerics.precision import PRECISIONS


@contextmanager
def float32(tf32: bool = False) -> Iterator[None]:
    """Within this context products of float32 are exact, or in TF32 on request, by the same kernels every time.

    Without it PyTorch lets convolutions run in TF32.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def autocast(name: str, device: str) -> Iterator[None]:
    """Within this context operations on a device type run in the precision of this name, as autocast chooses them."""
    kind = PRECISIONS[name].autocast
    with torch.autocast(device, getattr(torch, kind or "bfloat16"), enabled=kind is not None):
        yield
