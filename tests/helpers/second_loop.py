"""The training loop a second time, written from the papers and as plainly as possible, for comparison with the trainer.

It takes only the network, the augmentation and the random number generators from the package. Everything else stands
here once more: the order of images, all draws, preconditioning, losses, gradient accumulation over passes and ranks,
warm-up, gradient clipping, Adam and AdamW, and the moving average.

    python -m helpers.second_loop …      the training command, with networks in float64

In float32, the gradients of weights without influence (the bias of attention's keys, for example) consist of rounding
errors, which Adam enlarges to full steps. Therefore both loops run with networks in float64.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from diffit import nets, process
from diffit.numerics import rng
from diffit.training.task import identity


@dataclass
class Loop:
    """The state of the second loop.

    Args:
        spec: description of the run.
        manifest: the manifest of its data.
        data: images, uint8 [N, C, H, W]; or latents, float16 [N, 2, 2, C, h, w] (plain and mirrored; mean and std).
        labels: classes [N] of latents.
        ranks: number of ranks.
        microbatch: images per rank and pass.
        skip: steps that are left out.
    """

    spec: dict
    manifest: dict
    data: np.ndarray
    labels: np.ndarray | None = None
    ranks: int = 1
    microbatch: int = 50
    skip: tuple[int, ...] = ()
    losses: list[float] = field(default_factory=list)  # of each step, mean over images and values
    norms: list[float] = field(default_factory=list)  # of each step's gradient
    rates: list[float] = field(default_factory=list)  # learning rates

    def __post_init__(self):
        torch.manual_seed(self.spec["seed"])
        self.net = nets.build(identity(self.spec, self.manifest)["net"])
        self.weights = dict(self.net.named_parameters())
        self.average, self.first, self.second = ({n: f(w.detach()) for n, w in self.weights.items()} for f in (
            torch.clone, torch.zeros_like, torch.zeros_like))  # fmt: skip
        self.updates = 0

    def run(self, steps: int) -> "Loop":
        """Train from the start for a number of steps."""
        for step in range(steps):
            if step not in self.skip:
                gradient = self.gradient(step)
                self.update(gradient, images_before=step * self.spec["training"]["batch"])
        return self

    def gradient(self, step: int) -> dict[str, Tensor]:
        """The gradient of the mean loss of a batch, the sum over all passes of all ranks."""
        batch = self.spec["training"]["batch"]
        total = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        mean_loss = 0.0
        for rank in range(self.ranks):
            torch.manual_seed(int(rng.dropout(self.spec["seed"], step, rank).integers(2**63)))
            for part in range(batch // (self.ranks * self.microbatch)):
                first = step * batch + (part * self.ranks + rank) * self.microbatch
                losses = self.image_losses(range(first, first + self.microbatch))
                mean_loss += float(losses.detach().sum()) / batch
                found = torch.autograd.grad(losses.sum() / batch, list(self.weights.values()), allow_unused=True)
                for name, part_of_gradient in zip(self.weights, found, strict=True):
                    total[name] += 0 if part_of_gradient is None else part_of_gradient
        self.losses.append(mean_loss)
        return total

    @torch.no_grad()
    def update(self, gradient: dict[str, Tensor], images_before: int) -> None:
        """One step of Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019), then of the moving average."""
        t = self.spec["training"]
        warmup, (beta1, beta2) = t["warmup_kimg"] * 1000, t["betas"]
        rate = t["learning_rate"] * (min(images_before / warmup, 1) if warmup else 1)
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
        if "clip_norm" in t and norm > t["clip_norm"]:
            gradient = {name: g * t["clip_norm"] / norm for name, g in gradient.items()}
        self.updates += 1
        for name, weight in self.weights.items():
            g = gradient[name]
            if t["optimizer"] == "adam":
                g = g + t["weight_decay"] * weight
            else:
                weight -= rate * t["weight_decay"] * weight
            self.first[name] = beta1 * self.first[name] + (1 - beta1) * g
            self.second[name] = beta2 * self.second[name] + (1 - beta2) * g**2
            mean = self.first[name] / (1 - beta1**self.updates)
            square = self.second[name] / (1 - beta2**self.updates)
            weight -= rate * mean / (square.sqrt() + 1e-8)
        seen = images_before + t["batch"]
        halflife = t["ema_halflife_kimg"] * 1000
        if t["ema_rampup"] is not None:
            halflife = min(halflife, t["ema_rampup"] * seen)
        beta = 0.5 ** (t["batch"] / halflife)
        for name, weight in self.weights.items():
            self.average[name] = beta * self.average[name] + (1 - beta) * weight
        self.norms.append(norm)
        self.rates.append(rate)

    def image_losses(self, numbers: range) -> Tensor:
        """The loss of each image with these numbers, counted over all epochs: [B]."""
        kind = self.spec["process"]["kind"]
        count = len(self.data)
        indices = [rng.epoch_order(self.spec["seed"], n // count, count)[n % count] for n in numbers]
        generators = [rng.training(self.spec["seed"], n) for n in numbers]
        if kind == "ddpm":
            return self.latent_losses(indices, generators)
        images = torch.from_numpy(self.data[indices]).to(torch.float32) / 127.5 - 1
        sigma = np.array([_sigma(self.spec["process"], g) for g in generators], np.float32)
        noise = np.stack([g.standard_normal(images.shape[1:], dtype=np.float32) for g in generators])
        sigma, noise = torch.from_numpy(sigma), torch.from_numpy(noise)
        pipe, augment = process.build(self.spec["process"]).pipe, None
        if pipe.active:
            parameters = torch.from_numpy(np.stack([pipe.draw(g) for g in generators]))
            images, augment = pipe(images, parameters)
        return pixel_losses(self.net, self.spec["process"], images, sigma, noise, augment)

    def latent_losses(self, indices: list[int], generators: list[np.random.Generator]) -> Tensor:
        settings, shape = self.spec["process"], self.data.shape[3:]
        latents, labels, timesteps, noise = [], [], [], []
        for index, generator in zip(indices, generators, strict=True):
            mirrored = settings["xflip"] and generator.random() < 0.5
            mean, std = self.data[index, int(mirrored)].astype(np.float32)
            posterior_noise = generator.standard_normal(shape, dtype=np.float32)
            latents.append((mean + std * posterior_noise) * np.float32(self.manifest["vae"]["scale"]))
            hidden = generator.random() < settings["label_dropout"]
            labels.append(self.manifest["classes"] if hidden else self.labels[index])
            timesteps.append(generator.integers(settings["timesteps"]))
            noise.append(generator.standard_normal(shape, dtype=np.float32))
        latents, noise = (torch.from_numpy(np.stack(values)) for values in (latents, noise))
        labels, timesteps = torch.tensor(np.array(labels)), torch.tensor(np.array(timesteps))
        return hybrid_losses(self.net, settings["timesteps"], latents, timesteps, noise, labels)


def _sigma(settings: dict, generator: np.random.Generator) -> float:
    """The noise level of one training image."""
    if settings["kind"] == "edm":  # EDM, Table 1: ln(sigma) ~ N(P_mean, P_std²)
        return math.exp(settings["p_mean"] + settings["p_std"] * generator.standard_normal())
    if settings["kind"] == "vp":  # EDM, Table 1: t ~ U(1e-5, 1), beta_min = 0.1, beta_d = 19.9
        t = 1e-5 + (1 - 1e-5) * generator.random()
        return math.sqrt(math.exp(19.9 * t * t / 2 + 0.1 * t) - 1)
    low, high = math.log(0.02), math.log(100)  # ve: ln(sigma) ~ U(ln 0.02, ln 100)
    return math.exp(low + (high - low) * generator.random())


def pixel_losses(net: nn.Module, settings: dict, y: Tensor, sigma: Tensor, n: Tensor, augment: Tensor | None) -> Tensor:
    """lambda(sigma) |D(y + n) - y|², summed over pixels (EDM, Eq. 2, 7 and 8; Table 1): [B]."""
    s = sigma[:, None, None, None]
    x, s, y = (y + s * n).double(), s.double(), y.double()
    if settings["kind"] == "edm":
        data = settings["sigma_data"]
        skip, out = data**2 / (s**2 + data**2), s * data / (s**2 + data**2) ** 0.5
        scale, condition = 1 / (s**2 + data**2) ** 0.5, s.log() / 4
        weight = (s**2 + data**2) / (s * data) ** 2
    elif settings["kind"] == "vp":
        skip, out, scale, weight = 1, -s, 1 / (s**2 + 1) ** 0.5, 1 / s**2
        condition = 999 * ((0.01 + 2 * 19.9 * (s**2 + 1).log()) ** 0.5 - 0.1) / 19.9
    else:
        skip, out, scale, weight, condition = 1, s, 1, 1 / s**2, (s / 2).log()
    denoised = skip * x + out * net(scale * x, condition.flatten(), None if augment is None else augment.double())
    return (weight * (denoised - y) ** 2).sum((1, 2, 3))


def hybrid_losses(net: nn.Module, T: int, x0: Tensor, t: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
    """L_simple + L_vlb / T (Nichol & Dhariwal 2021, Eq. 16): per latent, means over values, the bound in bits: [B].

    L_vlb / T is the mean of the bound's terms over all steps. The mean of the reverse step gets no gradient from it.
    """
    beta = np.linspace(1e-4, 0.02, 1000) if T == 1000 else np.linspace(0.1 / T, 20 / T, T)
    alpha_bar = np.cumprod(1 - beta)
    before = np.append(1.0, alpha_bar[:-1])
    posterior = beta * (1 - before) / (1 - alpha_bar)
    posterior[0] = posterior[1]
    tables = np.stack([alpha_bar, before, beta, posterior])[:, t.numpy(), None, None, None]
    a, b, beta, posterior = torch.from_numpy(tables)  # each [B, 1, 1, 1]
    x0, noise = x0.double(), noise.double()
    x = (a**0.5 * x0 + (1 - a) ** 0.5 * noise).float().double()  # the network sees float32
    epsilon, v = net(x, t, labels).chunk(2, dim=1)
    # Eq. 10 and 11 of Nichol & Dhariwal: the posterior of x_{t-1}, with the true and with the predicted x_0.
    x0_found = (x - (1 - a) ** 0.5 * epsilon.detach()) / a**0.5

    def mean(start: Tensor) -> Tensor:
        return b**0.5 * beta / (1 - a) * start + (1 - beta) ** 0.5 * (1 - b) / (1 - a) * x

    share = (v + 1) / 2
    log_variance = share * beta.log() + (1 - share) * posterior.log()  # Eq. 15
    kl = (log_variance - posterior.log() - 1) / 2 + (
        posterior + (mean(x0) - mean(x0_found)) ** 2
    ) / (2 * log_variance.exp())  # fmt: skip

    def cdf(z: Tensor) -> Tensor:  # ADM's approximation of the normal distribution's
        return 0.5 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (z + 0.044715 * z**3)))

    std = (log_variance / 2).exp()
    upper, lower = (cdf((x0 - mean(x0_found) + edge) / std) for edge in (1 / 255, -1 / 255))
    inside = torch.where(x0 < -0.999, upper, torch.where(x0 > 0.999, 1 - lower, upper - lower))
    nll = -inside.clamp(min=1e-12).log()
    bound = torch.where(t[:, None, None, None] == 0, nll, kl) / math.log(2)
    return ((epsilon - noise) ** 2 + bound).mean((1, 2, 3))


if __name__ == "__main__":
    from diffit.cli import run_command
    from diffit.train import main

    torch.set_default_dtype(torch.float64)
    run_command(main)
