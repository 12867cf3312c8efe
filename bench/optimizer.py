"""Optimizer and EMA of a training step against unfused AdamW and a Python loop over the parameters.

    python -m bench.optimizer

Both use the same gradients and one thread, and their averages agree up to rounding. The gain depends on the size of the
tensors. Unfused AdamW passes over memory about 20 times, the fused kernel 7 times. This matters most for tensors larger
than the caches, as in the latent network, and hardly in the network for digits, where function calls dominate.
"""

import copy
from pathlib import Path

import torch
import yaml
from torch import nn

from bench.timing import compare
from diffit.config.toy_runs import complete
from diffit.nets import build
from diffit.process.augment import LABELS
from diffit.training.ema import EMA, decay
from diffit.training.trainer import _optimizer

IMAGES = 10**6  # seen so far; after the ramp-up of the EMA's half-life
TRAINING = {"optimizer": "adamw", "weight_decay": 0.01, "learning_rate": 1e-4, "betas": [0.9, 0.999], "batch": 256}
HALFLIFE = 500_000
WIDTH, LAYERS = 1152, 4  # the latent DiffiT has 28 layers of this width


class Ours:
    """Training's optimizer and its EMA."""

    def __init__(self, net: nn.Module):
        self.net, self.optimizer, self.ema = net, _optimizer(net, TRAINING), EMA(net, HALFLIFE, None)
        self.average = self.ema.net

    def step(self) -> None:
        self.optimizer.step()
        self.ema.update(self.net, IMAGES, TRAINING["batch"])


class Plain:
    """AdamW with one operation per tensor at a time, and the EMA of DiT's training script."""

    def __init__(self, net: nn.Module):
        options = {name: TRAINING[name] for name in ("betas", "weight_decay")}
        self.optimizer = torch.optim.AdamW(
            net.parameters(), TRAINING["learning_rate"], foreach=False, fused=False, **options
        )
        self.net, self.average = net, copy.deepcopy(net).requires_grad_(False)
        self.beta = decay(IMAGES, TRAINING["batch"], HALFLIFE, None)

    def step(self) -> None:
        self.optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(self.average.parameters(), self.net.parameters(), strict=True):
                average.mul_(self.beta).add_(parameter, alpha=1 - self.beta)


def row(name: str, net: nn.Module, steps: int, repeat: int, target: float | None = None) -> None:
    """Compare on one network with ``steps`` per call; report the difference of the averages after the first step."""
    twin = copy.deepcopy(net)
    for parameter, same in zip(net.parameters(), twin.parameters(), strict=True):
        parameter.grad = same.grad = torch.randn_like(parameter)
    ours, plain = Ours(net), Plain(twin)
    ours.step()
    plain.step()
    difference = max(
        (a - b).abs().max().item() for a, b in zip(ours.average.parameters(), plain.average.parameters(), strict=True)
    )
    million = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    compare(
        f"optimizer and EMA, {name}, {million:.1f}M",
        lambda: [ours.step() for _ in range(steps)],
        lambda: [plain.step() for _ in range(steps)],
        repeat,
        target,
    )
    print(f"{'':<44} largest difference after a step {difference:.1e}", flush=True)


def preset(run: str, resolution: int) -> nn.Module:
    """The network of a run in config.yaml."""
    spec = complete(yaml.safe_load(Path("config.yaml").read_text()), Path())["runs"][run]["net"]
    return build({**spec, "resolution": resolution, "channels": 3, "augment_labels": LABELS})


def latent() -> nn.Module:
    """The linear layers of ``LAYERS`` transformer blocks."""
    shapes = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]
    return nn.ModuleList(nn.Linear(*shape) for shape in shapes * LAYERS)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    row("digits", preset("digits", 8), steps=20, repeat=11)
    row("cifar10", preset("cifar10", 32), steps=1, repeat=11)
    row(f"{LAYERS} layers of {WIDTH}", latent(), steps=1, repeat=7, target=3)


if __name__ == "__main__":
    main()
