"""Conversions between uint8 pixels and the values that networks see."""

import numpy as np
import torch
from torch import Tensor


def to_network_range(images: Tensor) -> Tensor:
    """Scale uint8 pixels to float32 in [-1, 1]; pass float latents through unchanged."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


def to_uint8(images: Tensor) -> np.ndarray:
    """Images in [-1, 1], [B, C, H, W] -> uint8 [B, H, W, C]: truncate(127.5 x + 128), as in EDM's sampling script."""
    return truncated(images * 127.5 + 128)


def truncated(levels: Tensor) -> np.ndarray:
    """Gray levels [B, C, H, W] -> uint8 [B, H, W, C], clipped to [0, 255] and truncated."""
    return levels.clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
