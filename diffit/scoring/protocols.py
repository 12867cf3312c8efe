"""The registry of protocols: how images are resized, measured and compared with real images.

Scores of different protocols cannot be compared: the resize changes FID by more than most methods differ.
"""

from collections.abc import Callable
from dataclasses import dataclass

from diffit.registry import Registry
from diffit.scoring.resizing import Resize, pillow_bicubic, tensorflow_bilinear


@dataclass(frozen=True)
class Protocol:
    """How images become features, and how many are compared. Its metrics name the protocol (``METRICS``).

    Args:
        name: the name in ``--protocol`` and ``protocols:``.
        resize: returns the resizer, uint8 [H, W, 3] → float32 [299, 299, 3] in 0…255.
        network: file name of Inception in the network folder.
        width: number of features.
        reference_images: number of real images whose features a reference keeps, for KID, precision and recall.
        images: images per set of samples; None for any number.
        sets: sets of samples per score; each set has its own seeds.
        statistic: how the values of the sets become one score: ``single`` or ``minimum``. Compare it only with numbers
            that were published as the same statistic.
        source: who defined the protocol and how, for people.
        published_statistics: whether real images may be given as ADM's reference batch, whose statistics of the whole
            training set then replace measured ones.
    """

    name: str
    resize: Callable[[], Resize]
    network: str
    width: int
    reference_images: int
    images: int | None
    sets: int
    statistic: str
    source: str
    published_statistics: bool = False


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
        published_statistics=True,
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
