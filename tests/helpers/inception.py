"""FID's Inception network in the form of NVIDIA's file."""

import torch


class WithClasses(torch.nn.Module):
    """The form of NVIDIA's file: ``layers`` and, behind them, the linear ``output``."""

    def __init__(self, layers: torch.jit.ScriptModule):
        super().__init__()
        self.layers, self.output = layers, torch.nn.Linear(2048, 1008)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.layers(x).flatten(1))
