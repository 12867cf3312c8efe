"""The protocols under which images are compared: what each does to an image, computes, and compares with.

Scores of two protocols never stand in one column: the resize alone moves FID by more than most methods differ.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIZE = 299  # height and width of what Inception takes

Resize = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Protocol:
    """How images become vectors, and which scores are made of them.

    A value over several sets is only compared with one that was published as the same statistic.
    """

    name: str
    resize: Callable[[], Resize]  # builds: uint8 [H, W, 3] → float32 [299, 299, 3] in 0…255, what the network takes
    network: str  # its file in the network folder
    width: int  # of the features
    metrics: tuple[str, ...]
    reference_images: int  # how many images of the data set are compared one by one, as KID, precision and recall do
    images: int | None  # of a set of samples; None for any number
    sets: int  # sets of samples, each of seeds of its own, that make one score
    statistic: str  # of the sets: single or minimum
    source: str  # who defined it, in words


def pillow_bicubic() -> Resize:
    """clean-fid's resizer: Pillow's bicubic on float channels, antialiased and not rounded (Parmar et al. 2022)."""
    from cleanfid.resize import build_resizer  # here, since clean-fid takes seconds to import

    return build_resizer("clean")


def tensorflow_bilinear() -> Resize:
    """TensorFlow 1's bilinear resize, as it stands inside the graph of FID's Inception (align_corners off).

    Output pixel i lies at i · input / output, without the half pixel of later versions, and mixes the two nearest
    input pixels only: large images are not antialiased. Along each row first, in float32, as TensorFlow's kernel does;
    torch-fidelity's version, which is exact to TensorFlow's on a CPU, gives the same bits. NVIDIA's file samples the
    same places by ``grid_sample``, which rounds otherwise.
    """
    return _legacy_bilinear


def _legacy_bilinear(image: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    image = image.astype(np.float32)  # H W 3
    left, right, x = _neighbours(width)
    rows = image[:, left] + (image[:, right] - image[:, left]) * x[:, None]  # H 299 3
    top, bottom, y = _neighbours(height)
    return rows[top] + (rows[bottom] - rows[top]) * y[:, None, None]  # 299 299 3


def _neighbours(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of the 299 places along an axis of ``size`` pixels: the pixel before, the one after, how far between."""
    place = np.arange(SIZE, dtype=np.float32) * (np.float32(size) / np.float32(SIZE))
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, size - 1), place - before.astype(np.float32)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in [
        Protocol(
            name="clean",
            resize=pillow_bicubic,
            network="inception.pt",
            width=2048,
            metrics=("fid", "kid"),
            reference_images=50_000,
            images=None,
            sets=1,
            statistic="single",
            source="clean-fid (Parmar et al. 2022) in its mode clean: Pillow's bicubic resize, which antialiases",
        ),
        Protocol(
            name="adm",
            resize=tensorflow_bilinear,
            network="inception.pt",
            width=2048,
            metrics=("fid", "sfid", "inception_score", "precision", "recall"),
            reference_images=10_000,
            images=50_000,
            sets=1,
            statistic="single",
            source="the evaluator of ADM (Dhariwal and Nichol 2021), evaluations/evaluator.py of guided-diffusion: "
            "TensorFlow 1's bilinear resize, which does not antialias; one set of 50,000 against the whole training "
            "set, precision and recall against 10,000 of its images",
        ),
        Protocol(
            name="edm",
            resize=tensorflow_bilinear,
            network="inception.pt",
            width=2048,
            metrics=("fid",),
            reference_images=0,
            images=50_000,
            sets=3,
            statistic="minimum",
            source="the evaluator of EDM (Karras et al. 2022), fid.py: NVIDIA's pickle of the same Inception weights, "
            "which resizes in the same legacy way; 50,000 images against the whole training set, minimum of three sets",
        ),
    ]
}

# What a metric takes beside the features.
NEEDS = {"sfid": "spatial", "inception_score": "logits"}
