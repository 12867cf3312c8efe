"""Sampling of the latent network against the reference formulation, with the same weights, labels and noise.

    python -m bench.sampling

The reference's way: attention holds all weights and gathers its bias in every pass, every step runs the passes with and
without labels, all in float32. Ours: fused attention, a bias that is built once, and at 256×256 no pass without labels
where the guidance weight is within 1e-3 of one; once in float32 and once under bfloat16 autocast.

What is timed is short of the real thing in depth and steps (on a GPU: in steps). Blocks are alike, so two stand for 28.
A few evenly spaced steps stand for 250: they visit the same timesteps, so the same share of them is skipped; at 512×512
nothing is skipped and one step is like another.

How far the ways differ is told by a network that has learned something, the toy: a small latent DiffiT, trained here on
digits for half a minute, goes through all 250 steps in either way with the row's guidance.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from bench.network import CHANNELS, DEPTH, DEVICE, latent, operations, reference
from bench.timing import compare, note
from diffit.nets.latent import LatentConfig, LatentDiffiT
from diffit.nets.layers import cached_position_bias
from diffit.process.ddpm import DDPM, evenly_spaced
from diffit.process.guidance import Guidance, Predict

TIMESTEPS, REAL_STEPS, TRAINING_STEPS = 1000, 250, 1500
COSINE = {"kind": "power-cosine", "weight": 4.6, "power": 4, "channels": 3, "tolerance": 1e-3}  # the paper's at 256×256
CONSTANT = {"kind": "constant", "weight": 1.49, "channels": 3, "tolerance": 0}  # and at 512×512
# Resolution: guidance, images, steps, repetitions, and the ratios aimed at.
ROWS = {
    256: (COSINE, *((16, 50, 3) if DEVICE.type == "cuda" else (1, 25, 3)), {torch.float32: 1.17, torch.bfloat16: 1.5}),
    512: (CONSTANT, *((4, 50, 3) if DEVICE.type == "cuda" else (1, 2, 3)), {torch.float32: 1.2, torch.bfloat16: 1.5}),
}


class Sampling:
    """A process and a number of steps; draws all noise from one seed."""

    def __init__(self, guidance: dict, steps: int):
        self.process, self.guidance = DDPM(TIMESTEPS, label_dropout=0.1), guidance
        self.solve = self.process.sampler({"kind": "ddpm", "steps": steps})

    def ours(self, net: LatentDiffiT, labels: Tensor, precision: torch.dtype) -> Tensor:
        """As diffit.sample calls the network, and in bfloat16 under autocast."""
        with torch.autocast(DEVICE.type, precision, enabled=precision != torch.float32), cached_position_bias(net):
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


def trained() -> LatentDiffiT:
    """A small network that has learned to draw digits of the class asked for, each a latent of its four rotations."""
    torch.manual_seed(0)
    net = LatentDiffiT(LatentConfig(8, CHANNELS, 4, 128, 2, 4, 4, num_classes=10)).to(DEVICE)
    # In so few steps it learns classes only where the embeddings begin large.
    for weight in (net.y_embedder.embedding_table.weight, net.t_embedder.mlp[2].weight):
        torch.nn.init.normal_(weight)
    process, rng, digits = DDPM(TIMESTEPS, label_dropout=0.1), np.random.default_rng(0), load_digits()
    upright = torch.tensor(digits.images / 8 - 1, dtype=torch.float32)  # [N, 8, 8], in [-1, 1]
    latents = torch.stack([upright.rot90(turns, (1, 2)) for turns in range(CHANNELS)], dim=1)  # [N, 4, 8, 8]
    labels, denoiser = torch.tensor(digits.target), process.denoiser(net)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, TRAINING_STEPS)
    for _ in range(TRAINING_STEPS):
        chosen = torch.from_numpy(rng.integers(len(latents), size=128))
        draws = [process.draw(rng, latents.shape[1:]) for _ in chosen]
        drawn = {name: torch.from_numpy(np.stack([draw[name] for draw in draws])).to(DEVICE) for name in draws[0]}
        drawn["labels"] = labels[chosen].to(DEVICE)
        process.losses(denoiser, latents[chosen].to(DEVICE), drawn).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    return net


class Deviation:
    """How far samples of the toy are from the reference's with one guidance: 50 samples, all steps."""

    def __init__(self, toy: LatentDiffiT, guidance: dict):
        self.toy, self.guidance, self.labels = toy, guidance, torch.arange(50, device=DEVICE) % 10
        self.expected = Sampling(guidance, REAL_STEPS).other(reference(toy), self.labels)
        # To know what a deviation means: whether the toy draws digits, and how much its guidance changes them.
        digits = load_digits()
        classifier = KNeighborsClassifier(1).fit(digits.data / 8 - 1, digits.target)
        right = classifier.score(self.expected[:, 0].flatten(1).cpu().numpy(), self.labels.cpu().numpy())
        unguided = Sampling({"kind": "none"}, REAL_STEPS).ours(toy, self.labels, torch.float32)
        note(f"toy: {right:.0%} of the digits are of the class asked for; without guidance {self._apart(unguided)}")

    def tell(self, precision: torch.dtype, tolerance: float) -> None:
        """Print the deviation of ours at this precision and tolerance."""
        sampling = Sampling({**self.guidance, "tolerance": tolerance}, REAL_STEPS)
        apart = self._apart(sampling.ours(self.toy, self.labels, precision))
        note(f"toy, {_name(precision)}, tolerance {tolerance:g}: {apart}")

    def _apart(self, samples: Tensor) -> str:
        difference = samples - self.expected
        relative = difference.square().mean().sqrt() / self.expected.square().mean().sqrt()
        return f"largest difference {difference.abs().max():.1e}, relative RMS {relative:.1e}"


def _name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def row(toy: LatentDiffiT, resolution: int) -> None:
    """Compare at one resolution in both precisions, each with its deviation."""
    guidance, images, steps, repeat, targets = ROWS[resolution]
    sampling, net = Sampling(guidance, steps), latent(resolution)
    plain, labels = reference(net), torch.arange(images, device=DEVICE)
    skipped, of_real = sampling.skipped(), Sampling(guidance, REAL_STEPS).skipped()
    name = f"sampling {resolution}×{resolution}"
    print(
        f"{name}: batch of {images}, depth {DEPTH}, {steps} steps; the pass without labels is left out in {skipped}, "
        f"and in {of_real} of {REAL_STEPS}"
    )
    deviation = Deviation(toy, guidance)
    if guidance["tolerance"]:
        deviation.tell(torch.float32, 0)
    for precision, target in targets.items():
        compare(
            f"{name}, {_name(precision)} against float32",
            lambda precision=precision: sampling.ours(net, labels, precision),
            lambda: sampling.other(plain, labels),
            repeat,
            target,
            operations=images * (2 * steps - skipped) * operations(net.config),
        )
        deviation.tell(precision, guidance["tolerance"])


def main() -> None:
    torch.set_num_threads(1)
    toy = trained()
    for resolution in ROWS:
        row(toy, resolution)


if __name__ == "__main__":
    main()
