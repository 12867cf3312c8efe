"""train_vae: train a small VAE on a data set for which none is published.

    python -m diffit.training.train_vae SPEC_JSON DATA_FOLDER OUT_FOLDER

The record of the VAE holds the scale of its latents and the PSNR of its reconstructions, both measured on the training
images.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from diffit.cli import Parser, UserError, progress, run_command
from diffit.numerics import arithmetic, rng
from diffit.numerics.pixels import to_network_range
from diffit.registry.arguments import described
from diffit.store.manifest import read_manifest
from diffit.training import image_loader
from diffit.weights import vae
from diffit.weights.settings import one_kind

log = logging.getLogger("diffit")

CHUNK = 256  # images per pass when measuring


def train(spec: dict, data: Path, out: Path) -> dict:
    """Train the AutoencoderKL that ``spec`` describes on the images in ``data``; return its record.

    loss = mean((decode(z) - x)²) + kl_weight · mean((μ² + σ² - 1 - ln σ²) / 2),    z = μ + σ ε,    ε ~ N(0, 1)

    with pixels x in [-1, 1] and the posterior N(μ, σ²) of their latents. Raises :class:`UserError` if the PSNR is below
    ``least_psnr``.
    """
    torch.manual_seed(spec["seed"])
    pixels, _labels = image_loader.decoded(data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = vae.build(spec).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=spec["learning_rate"], fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, spec["learning_rate"], spec["steps"], pct_start=0.1)
    batches = progress(_batches(pixels, spec), total=spec["steps"], desc=f"train {out.name}", unit="step")
    for images in batches:
        loss = _loss(model, images.to(device), spec["kl_weight"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()
    scale, psnr = _measured(model, pixels)
    if not psnr > spec["least_psnr"]:
        raise UserError(
            f"{out.name} reconstructs images at {psnr:.1f} dB, below least_psnr {spec['least_psnr']}; "
            "raise steps or channels, or lower kl_weight"
        )
    log.info("%s reconstructs images at %.1f dB, scale %.4f", out.name, psnr, scale)
    manifest = read_manifest(data)
    return vae.write(
        out, model, scale, psnr=round(psnr, 2), dataset=manifest["dataset"], data_sha256=manifest["content_sha256"]
    )


def _batches(pixels: Tensor, spec: dict) -> Iterator[Tensor]:
    """Yield batches [B, 3, H, W] in [-1, 1], in another order each epoch. An epoch's incomplete batch is dropped."""
    batch = min(spec["batch"], len(pixels))
    for step in range(spec["steps"]):
        epoch, number = divmod(step, len(pixels) // batch)
        chosen = rng.epoch_order(spec["seed"], epoch, len(pixels))[number * batch : (number + 1) * batch]
        yield to_network_range(pixels[torch.from_numpy(chosen)])


def _loss(model: nn.Module, images: Tensor, kl_weight: float) -> Tensor:
    posterior = model.encode(images).latent_dist
    mean, variance = posterior.mean, posterior.var
    latents = mean + variance.sqrt() * torch.randn_like(mean)  # [B, C, h, w]
    error = model.decode(latents).sample - images
    divergence = (mean**2 + variance - 1 - variance.log()) / 2
    return (error**2).mean() + kl_weight * divergence.mean()


@torch.no_grad()
def _measured(model: nn.Module, pixels: Tensor) -> tuple[float, float]:
    """Return 1 / std of all latents, and the PSNR in dB of all images decoded from the posterior mean."""
    device = next(model.parameters()).device
    squared_error, total, second, latents, values = 0.0, 0.0, 0.0, 0, 0
    for chunk in progress(pixels.split(CHUNK), desc="measure the VAE", unit="chunk"):
        images = to_network_range(chunk).to(device)
        posterior = model.encode(images).latent_dist
        mean = posterior.mean.double()
        total += mean.sum().item()
        second += (mean**2 + posterior.var.double()).sum().item()
        latents += mean.numel()
        decoded = model.decode(posterior.mean).sample.clamp(-1, 1)
        squared_error += (decoded - images).double().square().sum().item()
        values += images.numel()
    std = (second / latents - (total / latents) ** 2) ** 0.5
    # The peak-to-peak range of pixels in [-1, 1] is 2.
    return 1 / std, 10 * torch.tensor(4 * values / squared_error).log10().item()


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "spec",
        type=described("the VAE", lambda: one_kind("trained")),
        help="the VAE as a JSON object: dataset, channels, steps, batch, …",
    )
    parser.add_argument("data", type=Path, help="the data set's folder with its manifest.json")
    parser.add_argument("out", type=Path, help="the VAE's folder, results/vaes/{vae}")
    arguments = parser.parse_args()
    with arithmetic.float32():
        train(arguments.spec, arguments.data, arguments.out)


if __name__ == "__main__":
    run_command(main)
