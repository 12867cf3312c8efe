"""train_vae: train a small VAE for the latent runs of a data set that has none.

    python -m diffit.training.train_vae SPEC_JSON DATA_FOLDER OUT_FOLDER

The scale of its latents is measured on the images that it was trained on, and what it loses is written down as the PSNR
of the images it gives back.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from diffit.cli import Parser, UserError, json_argument, progress, run
from diffit.numerics import arithmetic, rng
from diffit.numerics.pixels import to_network_range
from diffit.store import tars
from diffit.training import image_loader
from diffit.weights import vae

log = logging.getLogger("diffit")

CHUNK = 256  # images at a time where nothing is learned


def train(spec: dict, data: Path, out: Path) -> dict:
    """Train the AutoencoderKL that ``spec`` describes on the images in ``data``; returns its record.

    The loss is the squared error of the values in [-1, 1] plus ``kl_weight`` times the divergence of the posterior
    from a standard normal distribution, a mean over the latent's values; the posterior is drawn from anew each time.
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
            f"{out.name} gives images back at {psnr:.1f} dB, less than least_psnr {spec['least_psnr']}; "
            "give it more steps or channels, or a smaller kl_weight"
        )
    log.info("%s gives images back at %.1f dB, scale %.4f", out.name, psnr, scale)
    manifest = tars.read_manifest(data)
    return vae.write(
        out, model, scale, psnr=round(psnr, 2), dataset=manifest["dataset"], data_sha256=manifest["content_sha256"]
    )


def _batches(pixels: Tensor, spec: dict) -> Iterator[Tensor]:
    """Batches of values in [-1, 1], [B, 3, H, W], in a new order each epoch; an epoch's remainder is left out."""
    batch = min(spec["batch"], len(pixels))
    for step in range(spec["steps"]):
        epoch, place = divmod(step, len(pixels) // batch)
        chosen = rng.epoch_order(spec["seed"], epoch, len(pixels))[place * batch : (place + 1) * batch]
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
    """One over the standard deviation of all latents, and the PSNR of all images given back from the mean, in dB."""
    device = next(model.parameters()).device
    squares, total, second, count, errors = 0.0, 0.0, 0.0, 0, 0
    for chunk in pixels.split(CHUNK):
        images = to_network_range(chunk).to(device)
        posterior = model.encode(images).latent_dist
        mean = posterior.mean.double()
        total += mean.sum().item()
        second += (mean**2 + posterior.var.double()).sum().item()
        count += mean.numel()
        given_back = model.decode(posterior.mean).sample.clamp(-1, 1)
        squares += (given_back - images).double().square().sum().item()
        errors += images.numel()
    std = (second / count - (total / count) ** 2) ** 0.5
    return 1 / std, 10 * torch.tensor(4 * errors / squares).log10().item()


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="the VAE's description as a JSON object")
    parser.add_argument("data", type=Path, help="the data set's folder with its manifest.json")
    parser.add_argument("out", type=Path, help="the VAE's folder, results/vaes/{vae}")
    arguments = parser.parse_args()
    with arithmetic.float32():
        train(arguments.spec, arguments.data, arguments.out)


if __name__ == "__main__":
    run(main)
