"""clean-fid's own pipeline, for comparison."""

from pathlib import Path

import torch


class CleanFidNetwork:
    """clean-fid's call of this TorchScript, for its ``custom_feat_extractor``: 0…255 in, features out."""

    def __init__(self, folder: Path):
        self.script = torch.jit.load(folder / "inception.pt").eval()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.script((x - 128) / 128)
