"""Sampling of the latent network against the reference formulation, with the same weights, labels and noise.

    python -m bench.sampling

The reference's way: attention holds all weights and gathers its bias in every pass, every step runs the passes with and
without labels, all in float32. Ours: fused attention, a bias that is built once, and at 256×256 no pass without labels
where the guidance weight is within 1e-3 of one; once in float32 and once under bfloat16 autocast.

What is timed is short of the real thing in depth and steps (on a GPU: in steps). Blocks are alike, so two stand for 28.
``STEPS`` evenly spaced steps stand for 250: they visit the same range, and the same share of them is skipped. At
512×512 nothing is skipped and one step is like another, so a few will do.

How far the ways differ is told by a network that has learned something: a small latent DiffiT, trained here on
digits for some seconds, goes through all 250 steps with either way and the row's guidance.
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from bench.network import CHANNELS, CLASSES, DEPTH, DEVICE, FACTOR, latent, operations, reference
from bench.timing import compare, note
from diffit.nets.latent import LatentConfig, LatentDiffiT, constant_weights
from diffit.process.ddpm import DDPM, Denoiser, evenly_spaced
from diffit.process.guidance import Guidance, Predict

ON_GPU = DEVICE.type == "cuda"
TIMESTEPS, REAL_STEPS = 1000, 250
COSINE = {"kind": "power-cosine", "weight": 4.6, "power": 4, "channels": 3}  # the paper's at 256×256
CONSTANT = {"kind": "constant", "weight": 1.49, "channels": 3, "tolerance": 0}  # and at 512×512
# Resolution: guidance, images, steps, repetitions, and the ratios aimed at in float32 and in bfloat16.
ROWS = {
    256: ({**COSINE, "tolerance": 1e-3}, 16 if ON_GPU else 1, 50 if ON_GPU else 25, 3, 1.17, 1.5),
    512: (CONSTANT, 4 if ON_GPU else 1, 50 if ON_GPU else 2, 5, 1.2, 1.5),
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Sampling:
    """A process and a number of steps; draws all noise from one seed."""

    def __init__(self, guidance: dict, steps: int):
        self.process, self.guidance = DDPM(TIMESTEPS, label_dropout=0.1), guidance
        self.solve = self.process.sampler({"kind": "ddpm", "steps": steps})

    def ours(self, net: LatentDiffiT, labels: Tensor, precision: torch.dtype) -> Tensor:
        """As diffit.sample calls the network, and in bfloat16 under autocast."""
        with torch.autocast(DEVICE.type, precision, enabled=precision != torch.float32), constant_weights(net):
            predict = self.process.guided(self.process.denoiser(net), labels, {"guidance": self.guidance})
            return self._solved(predict, net.config, len(labels))

    def other(self, net: LatentDiffiT, labels: Tensor) -> Tensor:
        """Both passes in every step."""
        guidance = Guidance.of(self.guidance, TIMESTEPS)
        denoiser = self.process.denoiser(net)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            hidden = torch.arange(2 * len(x), device=x.device) >= len(x)
            both = denoiser(x.repeat(2, 1, 1, 1), t.repeat(2), labels.repeat(2), hidden)
            with_label, without = both.chunk(2)
            k, w = guidance.channels, guidance.weight(t)[:, None, None, None]
            epsilon = without[:, :k] + w * (with_label[:, :k] - without[:, :k])
            return torch.cat([epsilon, with_label[:, k:]], dim=1)

        return self._solved(predict, net.config, len(labels))

    def _solved(self, predict: Predict, config: LatentConfig, count: int) -> Tensor:
        generator = torch.Generator(DEVICE).manual_seed(0)
        shape = (count, config.channels, config.input_size, config.input_size)

        def noise() -> Tensor:
            return torch.randn(shape, generator=generator, device=DEVICE)

        return self.solve(predict, noise(), noise)

    def skipped(self) -> int:
        """In how many steps ours leaves the pass without labels out."""
        guidance = Guidance.of(self.guidance, TIMESTEPS)
        weights = guidance.weight(torch.tensor(evenly_spaced(TIMESTEPS, self.solve.steps)))
        return int(((weights - 1).abs() <= guidance.tolerance).sum())


def trained() -> tuple[LatentDiffiT, float]:
    """A small network that has learned the digits, each a latent of four rotations; and its loss over the first."""
    torch.manual_seed(0)
    net = LatentDiffiT(LatentConfig(8, 4, 2, 64, 2, 4, 4, 10, embedding_std=1.0)).to(DEVICE)
    process, rng, digits = DDPM(TIMESTEPS, label_dropout=0.1), np.random.default_rng(0), load_digits()
    upright = torch.tensor(digits.images / 8 - 1, dtype=torch.float32)
    latents = torch.stack([upright.rot90(turns, (1, 2)) for turns in range(4)], dim=1)  # [N, 4, 8, 8]
    labels, denoiser = torch.tensor(digits.target), process.denoiser(net)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    losses = []
    for _ in range(1500):
        chosen = torch.from_numpy(rng.integers(len(latents), size=64))
        draws = [process.draw(rng, (4, 8, 8)) for _ in chosen]
        drawn = {name: torch.from_numpy(np.stack([draw[name] for draw in draws])).to(DEVICE) for name in draws[0]}
        drawn["labels"] = labels[chosen].to(DEVICE)
        loss = process.losses(denoiser, latents[chosen].to(DEVICE), drawn).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return net, sum(losses[-100:]) / sum(losses[:100])


def main() -> None:
    torch.set_num_threads(1)
    start=time.time()
    net, share = trained()
    print(share, time.time()-start)
    labels = torch.arange(50)%10
    nn_ = KNeighborsClassifier(1).fit(load_digits().data/8-1, load_digits().target)
    s = Sampling(CONSTANT|{"weight":1.49}, 250)
    for k in range(2):
        start=time.time()
        x = s.ours(net, labels, torch.float32)
        print(time.time()-start, (nn_.predict(x[:,0].reshape(50,64).numpy())==labels.numpy()).mean(), x.std(), x.abs().max())
    r=s.other(reference(net),labels)
    print((r-x).abs().max())
    s = Sampling({**COSINE,"tolerance":1e-3}, 250)
    print(s.skipped(), Sampling({**COSINE,"tolerance":1e-3}, 25).skipped())
    x = s.ours(net, labels, torch.float32); r=s.other(reference(net),labels); b=s.ours(net, labels, torch.bfloat16)
    print((nn_.predict(x[:,0].reshape(50,64).numpy())==labels.numpy()).mean(), x.std(), x.abs().max(),(r-x).abs().max(), (r-b).abs().max(), (r-b).square().mean().sqrt()/r.square().mean().sqrt())

if __name__ == "__main__":
    main()
