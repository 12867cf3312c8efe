"""encode: encode one shard of images with a VAE, as one shard of latent moments for latent runs.

    python -m diffit.encode DATA_FOLDER/K-of-N.tar VAE_FOLDER OUT/K-of-N.tar

The member `{key}.npy` is float16 [2, 2, C, h, w]: image and mirror image, each with mean and standard deviation of its
posterior, unscaled. `{key}.cls` is the label. An existing shard is kept if it was made from the same images with the
same VAE, and refused otherwise.
"""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffit.cli import Parser, UserError, progress, run_command
from diffit.config.changes import difference
from diffit.numerics import arithmetic
from diffit.numerics.pixels import to_network_range
from diffit.store import files, tars
from diffit.store.fingerprint import commit
from diffit.store.manifest import read_shard_images, shard_entry, shard_number
from diffit.store.members import encode_npy
from diffit.weights import vae

log = logging.getLogger("diffit")

BATCH = 8  # images per step; another number may change the last digits


def encode(source: Path, vae_folder: Path, out: Path) -> dict:
    """Write the latents of the image shard ``source`` to ``out`` and return its sidecar.

    Raises :class:`UserError` for latents that are not finite in float16, and if ``out`` exists with latents of other
    images or of another VAE, scale, crop or resolution.
    """
    if shard_number(source) != shard_number(out):
        raise UserError(f"{out} is not the name for the latents of {source}; use {out.with_name(source.name)}")
    manifest, shard = shard_entry(source)
    facts = _facts(manifest, vae.read_facts(vae_folder))
    if out.exists():
        _refuse_others(out, facts)
        log.info("%s exists already and is kept", out)
        return files.verify(out, files.REMAKE_SHARD)
    encoder = vae.load(vae_folder).to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    samples = progress(read_shard_images(source, shard), total=shard["count"], desc="encode", unit="img")
    made_by = {"commit": commit(), "device": str(encoder.device)}
    with arithmetic.float32():
        record = tars.write_tar(out, _encoded(iter(samples), encoder, source), **facts, made_by=made_by)
    assert record["count"] == shard["count"], f"{out} has {record['count']} latents of {shard['count']} images"
    return record


def _facts(manifest: dict, vae_facts: dict) -> dict:
    """The facts that identify latents: images, crop, resolution, VAE and scale."""
    images = {name: manifest[name] for name in ("dataset", "resolution", "classes", "class_names", "resize")}
    return {**images, "images_sha256": manifest["content_sha256"], "vae": vae_facts}


def _refuse_others(out: Path, facts: dict) -> None:
    record = files.read_json(files.sidecar(out), files.REMAKE_SHARD)
    if changes := difference({name: record.get(name) for name in facts}, facts):
        raise UserError(f"{out} holds other latents ({'; '.join(changes)}); {files.REMAKE_SHARD}")


def _encoded(
    samples: Iterator[tuple[str, np.ndarray, int]], encoder: vae.VAE, source: Path
) -> Iterator[tuple[str, dict[str, bytes]]]:
    while chunk := list(islice(samples, BATCH)):
        pixels = torch.from_numpy(np.stack([image for _key, image, _label in chunk])).permute(0, 3, 1, 2)
        images = to_network_range(pixels.contiguous().to(encoder.device))  # [B, 3, H, W]
        both = torch.stack([encoder.moments(images), encoder.moments(images.flip(3))], dim=1)  # [B, 2, 2, C, h, w]
        for (key, _image, label), moments in zip(chunk, _half(both), strict=True):
            if not np.isfinite(moments).all():
                raise UserError(
                    f"the latent of {key} in {source} is not finite in float16; use another VAE for these images"
                )
            yield key, {"npy": encode_npy(moments), "cls": str(label).encode()}


def _half(moments: Tensor) -> np.ndarray:
    return moments.half().cpu().numpy()


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("images", type=Path, help="K-of-N.tar in a folder with a manifest.json")
    parser.add_argument("vae", type=Path, help="the VAE's folder, results/vaes/{vae}")
    parser.add_argument("out", type=Path, help="the shard to write, K-of-N.tar")
    arguments = parser.parse_args()
    encode(arguments.images, arguments.vae, arguments.out)


if __name__ == "__main__":
    run_command(main)
