"""measure: features of images under a protocol, one file of features for one tar of images.

    python -m diffit.measure FOLDER/K-of-N.tar FEATURES/K-of-N.npz --network NETWORK_FOLDER
    python -m diffit.measure PICTURES FEATURES/0-of-1.npz --network NETWORK_FOLDER

The second form takes any pictures of one size: a folder, a tar without a manifest, or an npz file as ADM's.
``python -m diffit.store.tars FEATURES --shards N`` then makes the manifest with which ``diffit.score`` reads the features.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from diffit.cli import Parser, UserError, progress, run_command
from diffit.data import image_sets
from diffit.data.image_sets import Sample
from diffit.numerics import arithmetic
from diffit.scoring.inception import Inception
from diffit.scoring.metrics import metrics_of
from diffit.scoring.protocols import PROTOCOLS
from diffit.store import files

Result = TypeVar("Result")

# A thread takes this many images at a time: on a CPU so few that activations stay in its cache.
BATCH = {"cpu": 4, "cuda": 32}
PRECISION = "float32"


def measure(source: Path, out: Path, network: Path, protocol: str = "clean", batch: int | None = None) -> dict:
    """Write the features of the images at ``source`` (see :func:`pictures.read`) to ``out``; returns its sidecar.

    ``out`` holds features float32 [n, d], keys str [n], labels int64 [n], in the order of the images, and what else
    the metrics of the protocol take: spatial float32 [n, 2023] and logits float32 [n, 1008]. All come from one pass.
    A metric whose array the network cannot give stands in the sidecar's ``gaps`` with the reason. Raises
    :class:`UserError` for a damaged input, images of several sizes and values that are not finite.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    rule = PROTOCOLS[protocol]
    given = image_sets.read(source)
    if out.name != given.features:
        raise UserError(
            f"the features of {source} cannot be called {out.name}; name them {out.with_name(given.features)}"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inception = Inception(network / rule.network, device)
    resize = rule.resize()
    needs = {metric.name: metric.takes for metric in metrics_of(protocol) if metric.takes != "features"}
    gaps = {metric: inception.missing[array] for metric, array in needs.items() if array in inception.missing}
    extras = set(needs.values()) - set(inception.missing)
    batch = batch or BATCH[device]

    def arrays_of(chunk: list[Sample]) -> dict[str, np.ndarray]:
        pixels = [resize(image) for _, image, _ in chunk]
        pixels += pixels[-1:] * (batch - len(chunk))  # other shapes may take other kernels, so that a cut would show
        return {name: rows[: len(chunk)] for name, rows in inception(np.stack(pixels), extras).items()}

    keys, labels, sizes, rows = [], [], set(), []
    with progress(desc="measure", unit="img", total=given.count) as bar:
        for chunk, arrays in _in_threads(arrays_of, given.samples, batch):
            keys += [key for key, _, _ in chunk]
            labels += [label for _, _, label in chunk]
            sizes |= {image.shape[:2] for _, image, _ in chunk}
            if len(sizes) > 1:
                raise UserError(f"{source} holds images of {_sizes(sizes)} pixels; bring them to one size first")
            rows.append(arrays)
            bar.update(len(chunk))
    if not rows:
        raise UserError(f"{source} holds no images; cut the set into fewer shards")
    width = rows[0]["features"].shape[1]
    if width != rule.width:
        raise UserError(
            f"{network / rule.network} gives {width} features, the protocol {rule.name} has {rule.width}; "
            f"fetch FID's Inception with the download stage"
        )
    arrays = {name: np.concatenate([part.pop(name) for part in rows]) for name in sorted({"features"} | extras)}
    for name, values in arrays.items():
        if bad := [key for key, row in zip(keys, values, strict=True) if not np.isfinite(row).all()]:
            raise UserError(f"{source} has an image {bad[0]} whose {name} are not finite; make it anew or remove it")

    with files.atomic(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays, keys=np.array(keys, str), labels=np.array(labels, np.int64))
    return files.seal(
        out,
        count=len(keys),
        protocol=rule.name,
        network_sha256=inception.sha256,
        resize=rule.resize.__name__,
        precision=PRECISION,
        gaps=gaps,
        width=rule.width,
        size=list(*sizes),
        images=given.facts,
        made_by={"images_sha256": given.sha256, "device": device},
    )


def _in_threads(
    work: Callable[[list[Sample]], Result], samples: Iterable[Sample], batch: int
) -> Iterator[tuple[list[Sample], Result]]:
    """Yield batches of samples with what ``work`` makes of them, in order, a few batches ahead.

    Each thread works on a batch of its own with one core: threads that share every operation of one batch wait for
    each other, most of all on a machine that does other things as well. It also makes the bits independent of the
    number of cores.
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
    parser.add_argument("images", type=Path, help="K-of-N.tar beside its manifest.json, or a folder, tar or npz")
    parser.add_argument(
        "out", type=Path, help="K-of-N.npz in a folder of its own (0-of-1.npz for pictures of your own)"
    )
    parser.add_argument("--network", type=Path, required=True, help="the folder with inception.pt and its sidecar")
    sources = "; ".join(f"{name}: {protocol.source}" for name, protocol in PROTOCOLS.items())
    parser.add_argument("--protocol", default="clean", choices=PROTOCOLS, help=f"clean by default. {sources}")
    parser.add_argument(
        "--batch", type=int, help=f"images at a time; {BATCH['cpu']} on a CPU, {BATCH['cuda']} on a GPU"
    )
    arguments = parser.parse_args()
    measure(arguments.images, arguments.out, arguments.network, arguments.protocol, arguments.batch)


if __name__ == "__main__":
    run_command(main)
