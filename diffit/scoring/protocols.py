"""The protocols under which images are compared: what each does to an image, computes, and compares with.

Scores of two protocols never stand in one column: the resize alone moves FID by more than most methods differ.
"""

from collections.abc import Callable
from dataclasses import dataclass

from diffit.registry import Registry
from diffit.scoring.resizing import Resize, pillow_bicubic, tensorflow_bilinear


@dataclass(frozen=True)
class Protocol:
    """How images become vectors, and which scores are made of them.

    A value over several sets is only compared with one that was published as the same statistic.
    """

    name: str
    resize: Callable[[], Resize]  # builds: uint8 [H, W, 3] → float32 [299, 299, 3] in 0…255, what the network takes
    network: str  # its file in the network folder
    width: int  # of the features
    reference_images: int  # how many images of the data set are compared one by one, as KID, precision and recall do
    images: int | None  # of a set of samples; None for any number
    sets: int  # sets of samples, each of seeds of its own, that make one score
    statistic: str  # of the sets: single or minimum
    source: str  # who defined it, in words


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    Protocol(
        name="clean",
        resize=pillow_bicubic,
        network="inception.pt",
        width=2048,
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
        reference_images=0,
        images=50_000,
        sets=3,
        statistic="minimum",
        source="the evaluator of EDM (Karras et al. 2022), fid.py: NVIDIA's pickle of the same Inception weights, "
        "which resizes in the same legacy way; 50,000 images against the whole training set, minimum of three sets",
    ),
)
