"""Batches of the training loader."""

import torch

from diffit.training import image_loader


def read(images, batches, workers: int = 0) -> dict[str, torch.Tensor]:
    parts = list(image_loader.load(images, batches, workers, pin=False))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
