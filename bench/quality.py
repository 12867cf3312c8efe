"""How scores respond to real and to damaged images of CIFAR-10.

    python -m bench.quality [--images N] [--out docs]

The images are those of ``../shared/data/cifar10_jpeg.zip``. First, N test images are compared with N training images
under every protocol. Then N / 5 test images are damaged in three steps (blur, noise, JPEG compression, fewer classes)
and compared with as many other test images under ``adm``. Writes a table and a plot. N = 2,500 takes an hour on two
cores.
"""

import argparse
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from diffit import download
from diffit.score import features_of, reference_of
from diffit.scoring.compare import score
from diffit.scoring.protocols import PROTOCOLS
from diffit.store import files

SHARED = Path("../shared/data/cifar10_jpeg.zip")
CLASSES = 10
TITLES = {
    "fid": "FID (lower is better)",
    "sfid": "sFID (lower is better)",
    "precision": "Precision (higher is better)",
    "recall": "Recall (higher is better)",
}
METRICS = tuple(TITLES)
MARKERS = "os^D"  # one per damage, and one for fewer classes
STRENGTHS = ("undamaged", "weak", "medium", "strong")


@dataclass(frozen=True)
class Damage:
    """One kind of damage in steps of increasing strength."""

    name: str
    steps: tuple[float, ...]
    apply: Callable[[Image.Image, float, np.random.Generator], Image.Image]


def blur(image: Image.Image, radius: float, _) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def noise(image: Image.Image, sigma: float, generator: np.random.Generator) -> Image.Image:
    levels = np.asarray(image) + sigma * generator.standard_normal((image.height, image.width, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: float, _) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality))
    return Image.open(buffer).convert("RGB")


DAMAGES = (
    Damage("Gaussian blur, radius in pixels", (0.5, 1, 2), blur),
    Damage("Gaussian noise, of 255 levels", (8, 16, 32), noise),
    Damage("JPEG, quality", (60, 30, 10), jpeg),
)
KEPT_CLASSES = (8, 5, 2)


class Pictures:
    """Images of one part of the archive (``train`` or ``test``), cycling through the classes."""

    def __init__(self, archive: Path, part: str):
        self._zip = zipfile.ZipFile(archive)
        by_class: dict[str, list[str]] = {}
        for name in sorted(self._zip.namelist()):
            if name.startswith(f"{part}/") and name.endswith(".jpg"):
                by_class.setdefault(name.split("/")[1], []).append(name)
        self._names = list(by_class.values())

    def take(self, count: int, first: int = 0, classes: int = CLASSES) -> list[Image.Image]:
        """``count`` images of the first ``classes`` classes, starting with image ``first`` of each class."""
        names = [self._names[i % classes][first + i // classes] for i in range(count)]
        return [Image.open(io.BytesIO(self._zip.read(name))).convert("RGB") for name in names]


def write(folder: Path, pictures: list[Image.Image]) -> Path:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i:05d}.png")
    return folder


def values(samples: Path, real, protocol: str, network: Path, scratch: Path) -> dict[str, dict]:
    result = score(features_of(samples, protocol, network, scratch), real)
    return {metric["name"]: metric for metric in result["metrics"]}


def compare_parts(archive: Path, count: int, network: Path, scratch: Path) -> pd.DataFrame:
    """All scores of ``count`` test images against as many training images, one row per protocol and metric."""
    train = write(scratch / "train", Pictures(archive, "train").take(count))
    test = write(scratch / "test", Pictures(archive, "test").take(count))
    rows = []
    for protocol in PROTOCOLS:
        real = reference_of(train, protocol, network, scratch / f"train {protocol}")
        for name, metric in values(test, real, protocol, network, scratch / f"test {protocol}").items():
            value = "–" if metric["value"] is None else f"{metric['value']:.4g}"
            rows.append([protocol, name, value, count, "yes" if metric["biased"] else "no"])
    return pd.DataFrame(rows, columns=["protocol", "score", "value", "images on each side", "biased"])


def compare_damages(archive: Path, count: int, network: Path, scratch: Path) -> pd.DataFrame:
    """Scores under ``adm`` of ``count`` original and damaged test images against as many others, one row per step."""
    pictures, generator = Pictures(archive, "test"), np.random.default_rng(0)
    real = write(scratch / "real", pictures.take(count, first=500))
    real = reference_of(real, "adm", network, scratch / "real adm")
    whole = pictures.take(count)
    sets = [("undamaged", 0.0, whole)]
    for damage in DAMAGES:
        sets += [(damage.name, step, [damage.apply(p, step, generator) for p in whole]) for step in damage.steps]
    sets += [("classes left", kept, pictures.take(count, classes=kept)) for kept in KEPT_CLASSES]
    rows = []
    for number, (name, step, damaged) in enumerate(sets):
        folder = write(scratch / f"set {number}", damaged)
        found = values(folder, real, "adm", network, scratch / f"set {number} adm")
        rows.append([name, step, *(found[metric]["value"] for metric in METRICS)])
    return pd.DataFrame(rows, columns=["what", "step", *METRICS])


def draw(frame: pd.DataFrame, out: Path) -> None:
    """Plot each score against the strength of each damage, one panel per score, with one legend below all panels."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained", sharex=True)
    undamaged, damaged = frame[frame["what"] == "undamaged"], frame[frame["what"] != "undamaged"]
    for axis, (metric, title) in zip(axes.flat, TITLES.items(), strict=True):
        for (what, rows), marker in zip(damaged.groupby("what", sort=False), MARKERS, strict=True):
            label = f"{what}: {', '.join(f'{step:g}' for step in rows['step'])}"
            axis.plot(range(len(rows) + 1), [*undamaged[metric], *rows[metric]], marker=marker, label=label)
        axis.set(title=title, xticks=range(len(STRENGTHS)), xticklabels=STRENGTHS, ylim=(0, None))
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    with files.atomic(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    few = arguments.images // 5
    with TemporaryDirectory() as temporary:
        scratch, network = Path(temporary), Path(temporary) / "network"
        download.download({"source": "inception"}, network)
        parts = compare_parts(SHARED, arguments.images, network, scratch)
        damages = compare_damages(SHARED, few, network, scratch)
    draw(damages, arguments.out / "quality.png")
    text = (
        "# Scores of real images\n\n"
        f"Generated by `python -m bench.quality --images {arguments.images}` from CIFAR-10 as JPEG files.\n\n"
        "## Training against test images\n\n"
        f"{parts.to_markdown(index=False, disable_numparse=True)}\n\n"
        "A value is – if the Inception network from the wheel has no classes.\n\n"
        "## Damaged images\n\n"
        f"{few} undamaged or damaged test images against {few} others under `adm`. FIDs of so few images are biased; "
        "compare them only with each other.\n\n"
        f"{damages.to_markdown(index=False, floatfmt='.4g')}\n\n"
        "![scores against steps](quality.png)\n"
    )
    with files.atomic(arguments.out / "quality.md") as file:
        file.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
