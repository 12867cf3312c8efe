"""Sampling of the latent network against a reference implementation, with the same weights, labels and noise.

    python -m bench.sampling

The reference computes explicit attention weights, gathers the position bias in every pass, and runs the passes with and
without labels in every step, all in float32. Ours uses fused attention and builds the bias once. At 256×256 it skips
the pass without labels if the guidance weight is within 1e-3 of 1. It runs in float32 and with bfloat16 autocast.

The timed runs have fewer steps than real sampling and, on CPUs, fewer blocks. All blocks have the same cost. Steps are
evenly spaced over the timesteps, so the fraction of skipped passes is the same as for 250 steps. At 512×512 no pass is
skipped, and all steps have the same cost.

The deviation between the two is measured with a small trained network: a latent DiffiT is trained on digits for half a
minute and then sampled by both with 250 steps and the same guidance.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from bench.network import CHANNELS, DEPTH, DEVICE, forward_flops, latent, reference
from bench.timing import compare, note
from diffit.nets.latent import LatentConfig, LatentDiffiT
from diffit.nets.layers import cached_position_bias
from diffit.process import samplers
from diffit.process.ddpm import DDPM
from diffit.process.discrete_time import evenly_spaced
from diffit.process.guidance import Guidance, Predict

TIMESTEPS, REAL_STEPS, TRAINING_STEPS = 1000, 250, 1500
COSINE = {
    "kind": "power-cosine",
    "weight": 4.6,
    "power": 4,
    "channels": 3,
    "tolerance": 1e-3,
}  # in the paper at 256×256
CONSTANT = {"kind": "constant", "weight": 1.49, "channels": 3, "tolerance": 0}  # in the paper at 512×512
# By resolution: guidance, images, steps, repetitions and target ratios.
ROWS = {
    256: (COSINE, *((16, 50, 3) if DEVICE.type == "cuda" else (1, 25, 3)), {torch.float32: 1.17, torch.bfloat16: 1.5}),
    512: (CONSTANT, *((4, 50, 3) if DEVICE.type == "cuda" else (1, 2, 3)), {torch.float32: 1.2, torch.bfloat16: 1.5}),
}


class Sampling:
    """Sampling with one guidance and number of steps; all noise comes from one seed."""

    def __init__(self, guidance: dict, steps: int):
        self.process, self.guidance = DDPM(TIMESTEPS, label_dropout=0.1), guidance
        self.solve = samplers.build(self.process, {"kind": "ddpm", "steps": steps})

    def ours(self, net: LatentDiffiT, labels: Tensor, precision: torch.dtype) -> Tensor:
        """Sample as :mod:`diffit.sample` does; bfloat16 means autocast."""
        with torch.autocast(DEVICE.type, precision, enabled=precision != torch.float32), cached_position_bias(net):
            predict = self.process.guided(self.process.denoiser(net), labels, {"guidance": self.guidance})
            return self._solved(predict, net.config, len(labels))

    def other(self, net: LatentDiffiT, labels: Tensor) -> Tensor:
        """Sample with both passes in every step."""
        guidance = Guidance.of(self.guidance, TIMESTEPS)
        denoiser = self.process.denoiser(net)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            hidden = torch.arange(2 * len(x), device=x.device) >= len(x)
            both = denoiser(x.repeat(2, 1, 1, 1), t.repeat(2), labels.repeat(2), hidden)
            conditional, unconditional = both.chunk(2)
            k, w = guidance.channels, guidance.weight(t)[:, None, None, None]
            epsilon = unconditional[:, :k] + w * (conditional[:, :k] - unconditional[:, :k])
            return torch.cat([epsilon, conditional[:, k:]], dim=1)

        return self._solved(predict, net.config, len(labels))

    def _solved(self, predict: Predict, config: LatentConfig, count: int) -> Tensor:
        generator = torch.Generator(DEVICE).manual_seed(0)
        shape = (count, config.channels, config.input_size, config.input_size)

        def noise() -> Tensor:
            return torch.randn(shape, generator=generator, device=DEVICE)

        return self.solve(predict, noise(), noise)

    def skipped(self) -> int:
        """Number of steps in which ours skips the pass without labels."""
        guidance = Guidance.of(self.guidance, TIMESTEPS)
        weights = guidance.weight(torch.tensor(evenly_spaced(TIMESTEPS, self.solve.steps)))
        return int(((weights - 1).abs() <= guidance.tolerance).sum())


def trained() -> LatentDiffiT:
    """Train a small class-conditional network on digits; a latent contains the four rotations of one digit."""
    torch.manual_seed(0)
    net = LatentDiffiT(LatentConfig(8, CHANNELS, 4, 128, 2, 4, 4, num_classes=10)).to(DEVICE)
    # With so few steps, it learns the classes only if the embeddings are initially large.
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
    """Deviation of samples of the small network from the reference's: 50 samples, 250 steps, one guidance."""

    def __init__(self, toy: LatentDiffiT, guidance: dict):
        self.toy, self.guidance, self.labels = toy, guidance, torch.arange(50, device=DEVICE) % 10
        self.expected = Sampling(guidance, REAL_STEPS).other(reference(toy), self.labels)
        # For comparison: the accuracy of the digits' classes, and the deviation without guidance.
        digits = load_digits()
        classifier = KNeighborsClassifier(1).fit(digits.data / 8 - 1, digits.target)
        right = classifier.score(self.expected[:, 0].flatten(1).cpu().numpy(), self.labels.cpu().numpy())
        unguided = Sampling({"kind": "none"}, REAL_STEPS).ours(toy, self.labels, torch.float32)
        note(
            f"small network: {right:.0%} of the digits have the right class; "
            f"without guidance {self._difference(unguided)}"
        )

    def report(self, precision: torch.dtype, tolerance: float) -> None:
        """Print the deviation of ours at this precision and tolerance."""
        sampling = Sampling({**self.guidance, "tolerance": tolerance}, REAL_STEPS)
        difference = self._difference(sampling.ours(self.toy, self.labels, precision))
        note(f"small network, {_name(precision)}, tolerance {tolerance:g}: {difference}")

    def _difference(self, samples: Tensor) -> str:
        difference = samples - self.expected
        relative = difference.square().mean().sqrt() / self.expected.square().mean().sqrt()
        return f"largest difference {difference.abs().max():.1e}, relative RMS {relative:.1e}"


def _name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def row(toy: LatentDiffiT, resolution: int) -> None:
    """Compare at one resolution in both precisions and report the deviations."""
    guidance, images, steps, repeat, targets = ROWS[resolution]
    sampling, net = Sampling(guidance, steps), latent(resolution)
    plain, labels = reference(net), torch.arange(images, device=DEVICE)
    skipped, skipped_of_real = sampling.skipped(), Sampling(guidance, REAL_STEPS).skipped()
    name = f"sampling {resolution}×{resolution}"
    print(
        f"{name}: batch of {images}, depth {DEPTH}, {steps} steps; the pass without labels is skipped in {skipped}, "
        f"and in {skipped_of_real} of {REAL_STEPS} steps of real sampling"
    )
    deviation = Deviation(toy, guidance)
    if guidance["tolerance"]:
        deviation.report(torch.float32, 0)
    for precision, target in targets.items():
        compare(
            f"{name}, {_name(precision)} against float32",
            lambda precision=precision: sampling.ours(net, labels, precision),
            lambda: sampling.other(plain, labels),
            repeat,
            target,
            flops=images * (2 * steps - skipped) * forward_flops(net.config),
        )
        deviation.report(precision, guidance["tolerance"])


def main() -> None:
    torch.set_num_threads(1)
    toy = trained()
    for resolution in ROWS:
        row(toy, resolution)


if __name__ == "__main__":
    main()
