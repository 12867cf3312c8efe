"""What a GPU does with float32, in one place: left alone, PyTorch lets convolutions run in TF32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32(tf32: bool = False) -> Iterator[None]:
    """Within this context products of float32 are exact, or in TF32 where asked for, by the same kernels every time."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
