"""measure: Inception's features of images under a protocol, one file of features per tar of images.

    python -m diffit.measure FOLDER/K-of-N.tar FEATURES/K-of-N.npz --network NETWORK_FOLDER
    python -m diffit.measure IMAGES FEATURES/0-of-1.npz --network NETWORK_FOLDER

The second form takes any images of equal size: a folder, a tar without a manifest, or an npz file like ADM's. Then
``python -m diffit.store.manifest FEATURES --shards N`` writes the manifest that ``diffit.score`` needs.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from diffit.cli import Parser, UserError, positive_int, progress, run_command
from diffit.data import image_sets
from diffit.data.image_sets import ImageSet, Sample
from diffit.numerics import arithmetic
from diffit.scoring.inception import Inception
from diffit.scoring.metrics import metrics_of
from diffit.scoring.protocols import PROTOCOLS, Protocol
from diffit.store import files

Result = TypeVar("Result")

# Images per thread and step. On a CPU so few that their activations stay in its cache.
BATCH = {"cpu": 4, "cuda": 32}
PRECISION = "float32"


def measure(source: Path, out: Path, network: Path, protocol: str = "clean", batch: int | None = None) -> dict:
    """Write the features of images to ``out`` and return its sidecar.

    ``out`` holds, in the order of the images, features float32 [n, d], keys str [n], labels int64 [n], and the other
    arrays that the metrics of the protocol take: spatial float32 [n, 2023] and logits float32 [n, 1008]. The sidecar
    lists under ``gaps`` the metrics whose array the network cannot give, with the reason.

    Args:
        source: the images; see :func:`diffit.data.image_sets.read`.
        out: the npz file, named like the shard of images; ``0-of-1.npz`` for the user's own images.
        network: the folder with Inception.
        protocol: name of the protocol.
        batch: images per step; by default that of ``BATCH``. It changes the rounding of features.

    Raises :class:`UserError` for damaged images, images of different sizes and features that are not finite.
    """
    described, images = PROTOCOLS[protocol], image_sets.read(source)
    if out.name != images.features_name:
        raise UserError(
            f"{out} is not the name for the features of {source}; use {out.with_name(images.features_name)}"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inception = Inception(network / described.network, device)
    needed = {metric.name: metric.takes for metric in metrics_of(protocol) if metric.takes != "features"}
    extras = set(needed.values()) - set(inception.missing)
    found = _measure_images(images, source, inception, described, extras, batch or BATCH[device])
    _check(found, source, network, described)

    with files.atomic(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **found.arrays, keys=np.array(found.keys, str), labels=np.array(found.labels, np.int64))
    return files.seal(
        out,
        count=len(found.keys),
        protocol=described.name,
        network_sha256=inception.sha256,
        resize=described.resize.__name__,
        precision=PRECISION,
        gaps={metric: inception.missing[array] for metric, array in needed.items() if array in inception.missing},
        width=described.width,
        size=list(found.size),
        images=images.facts,
        made_by={"images_sha256": images.sha256, "device": device},
    )


@dataclass
class _Measured:
    """Arrays with one row per image, and the images' keys, labels and common size (height, width)."""

    keys: list[str]
    labels: list[int]
    size: tuple[int, int]
    arrays: dict[str, np.ndarray]


def _measure_images(
    images: ImageSet, source: Path, inception: Inception, protocol: Protocol, extras: Collection[str], batch: int
) -> _Measured:
    """Measure all images in one pass. Raises :class:`UserError` for no images and for images of different sizes."""
    resize = protocol.resize()

    def arrays_of(chunk: list[Sample]) -> dict[str, np.ndarray]:
        pixels = [resize(image) for _, image, _ in chunk]
        # Pad the last batch: kernels for other shapes round differently, so features would depend on the shards.
        pixels += pixels[-1:] * (batch - len(chunk))
        return {name: rows[: len(chunk)] for name, rows in inception(np.stack(pixels), extras).items()}

    keys, labels, sizes, parts = [], [], set(), []
    with progress(desc="measure", unit="img", total=images.count) as bar:
        for chunk, arrays in _in_threads(arrays_of, images.samples, batch):
            keys += [key for key, _, _ in chunk]
            labels += [label for _, _, label in chunk]
            sizes |= {image.shape[:2] for _, image, _ in chunk}
            if len(sizes) > 1:
                raise UserError(f"{source} holds images of {_sizes(sizes)} pixels; resize them to one size first")
            parts.append(arrays)
            bar.update(len(chunk))
    if not parts:
        raise UserError(f"{source} holds no images; split the set into fewer shards")
    names = sorted({"features", *extras})
    arrays = {name: np.concatenate([part.pop(name) for part in parts]) for name in names}
    return _Measured(keys, labels, *sizes, arrays)


def _check(measured: _Measured, source: Path, network: Path, protocol: Protocol) -> None:
    """Raise :class:`UserError` if the number of features is not the protocol's or values are not finite."""
    width = measured.arrays["features"].shape[1]
    if width != protocol.width:
        raise UserError(
            f"{network / protocol.network} gives {width} features instead of the {protocol.width} of the protocol "
            f"{protocol.name}; fetch FID's Inception with the download stage"
        )
    for name, values in measured.arrays.items():
        if bad := [key for key, row in zip(measured.keys, values, strict=True) if not np.isfinite(row).all()]:
            raise UserError(f"{source} has an image {bad[0]} whose {name} are not finite; replace or remove the image")


def _in_threads(
    work: Callable[[list[Sample]], Result], samples: Iterable[Sample], batch: int
) -> Iterator[tuple[list[Sample], Result]]:
    """Yield batches of samples with the results of ``work``, in order. A few batches are computed ahead.

    Each thread works on its own batch with one core. If all threads shared each operation of one batch, they would wait
    for each other, most of all on a busy machine, and the bits would depend on the number of cores.
    """
    samples, threads = iter(samples), torch.get_num_threads()
    try:
        with arithmetic.float32(), ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            ahead = deque()
            while chunk := list(islice(samples, batch)):
                ahead.append((chunk, pool.submit(work, chunk)))
                if len(ahead) > 2 * threads:
                    chunk, future = ahead.popleft()
                    yield chunk, future.result()
            for chunk, future in ahead:
                yield chunk, future.result()
    finally:
        torch.set_num_threads(threads)


def _sizes(sizes: set[tuple[int, int]]) -> str:
    return " and ".join(f"{width}×{height}" for height, width in sorted(sizes))


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "images", type=Path, help="K-of-N.tar with a manifest.json in its folder, or a folder, tar or npz"
    )
    parser.add_argument("out", type=Path, help="K-of-N.npz in a folder of its own (0-of-1.npz for your own images)")
    parser.add_argument("--network", type=Path, required=True, help="the folder with inception.pt and its sidecar")
    sources = "; ".join(f"{name}: {protocol.source}" for name, protocol in PROTOCOLS.items())
    parser.add_argument("--protocol", default="clean", choices=PROTOCOLS, help=f"default: clean. {sources}")
    parser.add_argument(
        "--batch",
        type=positive_int,
        help=f"images per step; {BATCH['cpu']} on a CPU, {BATCH['cuda']} on a GPU by default",
    )
    arguments = parser.parse_args()
    measure(arguments.images, arguments.out, arguments.network, arguments.protocol, arguments.batch)


if __name__ == "__main__":
    run_command(main)
