"""encode: one tar of images to one tar of latent moments, with the VAE of latent runs.

    python -m diffit.encode DATA_FOLDER/K-of-N.tar VAE_FOLDER OUT/K-of-N.tar

A member `{key}.npy` is float16 [2, 2, C, h, w]: of the image and of its mirror image, mean and standard deviation of
the posterior, unscaled. The label stands beside it as `{key}.cls`. A shard that is there already is kept when it was
made of the same images by the same VAE, and refused otherwise.
"""

import io
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
from diffit.store.manifest import read_manifest, read_shard_images, shard_number
from diffit.weights import vae

log = logging.getLogger("diffit")

BATCH = 8  # images at a time; with another number the last digits may differ


def encode(source: Path, vae_folder: Path, out: Path) -> dict:
    """Write the latents of the image tar ``source`` to ``out`` and return its sidecar.

    Raises :class:`UserError` for latents that are not finite in float16, and where ``out`` holds latents of another
    VAE, scale, crop, resolution or of other images.
    """
    if shard_number(source) != shard_number(out):
        raise UserError(f"the latents of {source} cannot be called {out.name}; name them {out.with_name(source.name)}")
    manifest = read_manifest(source.parent)
    shard = next((shard for shard in manifest["shards"] if shard["file"] == source.name), None)
    if shard is None:
        raise UserError(f"{source} is not in the manifest beside it; gather the folder again or correct the name")
    facts = _facts(manifest, vae.read_facts(vae_folder))
    if out.exists():
        _refuse_others(out, facts)
        log.info("%s is there already", out)
        return files.verify(out, files.REMAKE_SHARD)
    encoder = vae.load(vae_folder).to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    samples = progress(read_shard_images(source, shard), total=shard["count"], desc="encode", unit="img")
    made_by = {"commit": commit(), "device": str(encoder.device)}
    with arithmetic.float32():
        record = tars.write_tar(out, _encoded(iter(samples), encoder, source), **facts, made_by=made_by)
    assert record["count"] == shard["count"], f"{out} has {record['count']} latents of {shard['count']} images"
    return record


def _facts(manifest: dict, vae_facts: dict) -> dict:
    """What latents are: of which images, cropped how, at which size, by which VAE at which scale."""
    images = {name: manifest[name] for name in ("dataset", "resolution", "classes", "class_names", "resize")}
    return {**images, "images_sha256": manifest["content_sha256"], "vae": vae_facts}


def _refuse_others(out: Path, facts: dict) -> None:
    record = files.read_json(files.sidecar(out), files.REMAKE_SHARD)
    if changes := difference({name: record.get(name) for name in facts}, facts):
        raise UserError(f"{out} holds latents of another kind ({'; '.join(changes)}); {files.REMAKE_SHARD}")


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
                    f"the latent of {key} in {source} is not finite in float16; the VAE does not suit these images"
                )
            yield key, {"npy": _npy(moments), "cls": str(label).encode()}


def _half(moments: Tensor) -> np.ndarray:
    return moments.half().cpu().numpy()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("images", type=Path, help="K-of-N.tar beside its manifest.json")
    parser.add_argument("vae", type=Path, help="the VAE's folder, results/vaes/{vae}")
    parser.add_argument("out", type=Path, help="K-of-N.tar in a folder of its own")
    arguments = parser.parse_args()
    encode(arguments.images, arguments.vae, arguments.out)


if __name__ == "__main__":
    run_command(main)
