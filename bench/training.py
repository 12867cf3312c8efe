"""A training step of the latent network: our trainer against the recipe of DiT's training script.

    python -m bench.training

Ours is the trainer itself: bfloat16 autocast, fused AdamW, the gradient norm, and the EMA update in one call. The other
uses float32, torch's default AdamW, and a Python loop over the parameters for the EMA. Network, loss, latents and
random values are the same.

The batch is small and, on CPUs, the network has fewer blocks, so that a step takes seconds. Optimizer and EMA, whose
cost does not depend on the batch, therefore have a larger share of the step than in real training.
"""

import copy
import itertools
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.network import DEPTH, DEVICE, forward_flops, latent
from bench.timing import compare, note
from diffit import process
from diffit.training import ranks
from diffit.training.ema import decay
from diffit.training.task import Machine
from diffit.training.trainer import Trainer

RESOLUTION = 256
BATCH = 32 if DEVICE.type == "cuda" else 4
PROCESS = {"kind": "ddpm", "timesteps": 1000, "label_dropout": 0.1, "xflip": True}
SETTINGS = {
    "batch": BATCH,
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "betas": [0.9, 0.999],
    "weight_decay": 0,
    "warmup_kimg": 0,
    "ema_halflife_kimg": 1774.4,
    "ema_rampup": None,
    "precision": "bfloat16",
}


def batch(shape: tuple[int, ...], classes: int) -> dict[str, Tensor]:
    """A batch as the loader delivers it, with random latents and labels."""
    rng = np.random.default_rng(0)
    draws = [process.build(PROCESS).draw(rng, shape) for _ in range(BATCH)]
    drawn = {name: torch.from_numpy(np.stack([draw[name] for draw in draws])) for name in draws[0]}
    images = torch.from_numpy(rng.standard_normal((BATCH, *shape), dtype=np.float32))
    return {"images": images, "labels": torch.from_numpy(rng.integers(classes, size=BATCH)), **drawn}


class Ours:
    """The trainer with the same batch in every step."""

    def __init__(self, net: nn.Module, content: dict[str, Tensor], folder: Path):
        identity = {
            "net": {"kind": "latent", **asdict(net.config)}, "process": PROCESS, "training": SETTINGS, "seed": 0
        }  # fmt: skip
        machine = Machine(None, 0, compile=False, gradient_checkpointing=False, checkpoint_minutes=0)
        self.trainer = Trainer(ranks.Rank(0, 1, DEVICE), identity, folder, machine)
        self.trainer.net.load_state_dict(net.state_dict())
        self.batches = (dict(content) for _ in itertools.repeat(None))
        self.numbers = itertools.count()

    def step(self) -> float:
        """Take a step and return its loss."""
        step = next(self.numbers)
        loss, norm = self.trainer._accumulate(self.batches, step)
        self.trainer._update(step, loss, norm)
        return loss


class Plain:
    """The recipe of DiT's training script."""

    def __init__(self, net: nn.Module, content: dict[str, Tensor]):
        self.net, self.average = copy.deepcopy(net), copy.deepcopy(net).requires_grad_(False)
        self.process, self.content = process.build(PROCESS), content
        self.denoiser = self.process.denoiser(self.net)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), SETTINGS["learning_rate"], weight_decay=0)
        self.beta = decay(0, BATCH, SETTINGS["ema_halflife_kimg"] * 1000, None)

    def step(self) -> float:
        """Take a step and return its loss."""
        drawn = {name: value.to(DEVICE) for name, value in self.content.items()}
        loss = self.process.losses(self.denoiser, drawn.pop("images"), drawn).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(self.average.parameters(), self.net.parameters(), strict=True):
                average.mul_(self.beta).add_(parameter, alpha=1 - self.beta)
        return loss.item()


def main() -> None:
    torch.set_num_threads(1)
    net = latent(RESOLUTION)
    config = net.config
    content = batch((config.channels, config.input_size, config.input_size), config.num_classes)
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = Ours(net, content, Path(folder)), Plain(net, content)
        losses = f"loss of the first step {ours.step():.4f} and {plain.step():.4f}"
        name = f"training step, {RESOLUTION}×{RESOLUTION}, depth {DEPTH}, batch of {BATCH}"
        # A backward pass has twice the FLOPs of the forward pass.
        compare(name, ours.step, plain.step, 7, 1.6, flops=3 * BATCH * forward_flops(config))
        note(losses)


if __name__ == "__main__":
    main()
