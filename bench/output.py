"""Output of generated images: a tar of raw arrays, as sample writes it, against one PNG file an image.

    python -m bench.output

Both ways write the images and read them back. Ours hashes the tar, verifies it, indexes it and waits until it is on
the disk; the PNG files do none of that. Their cost is compression, by the pixel, so small images gain less.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.timing import compare
from diffit.data import images
from diffit.store import tars
from diffit.store.manifest import gather, read_images
from diffit.store.members import encode_npy

SHARED = Path("../shared/data")
SIZES = {64: (2048, None), 256: (256, 20)}  # how many images at each resolution, and the ratio aimed at


def pictures(size: int, count: int) -> tuple[str, np.ndarray]:
    """What the pictures are, and ``count`` of them, uint8 [count, size, size, 3]."""
    paths = sorted((SHARED / "imagenet_sample").rglob("*.JPEG"))
    if not paths:
        # Smoothed noise: noise alone would not compress at all.
        noise = np.random.default_rng(0).integers(0, 256, (count, size // 4, size // 4, 3), dtype=np.uint8)
        enlarged = [np.asarray(Image.fromarray(small).resize((size, size))) for small in noise]
        return "smoothed noise", np.stack(enlarged)
    crops = [np.asarray(images.center_crop(images.decode(path, path.name), size)) for path in paths]
    return "ImageNet", np.stack(list(itertools.islice(itertools.cycle(crops), count)))


def as_tar(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Write and read back as sample and measure do."""
    samples = ((f"{seed:08d}", {"npy": encode_npy(image), "cls": b"0"}) for seed, image in enumerate(pixels))
    tars.write_tar(path, samples)
    gather(path.parent, 1)
    return np.stack([image for _key, image, _label in read_images(path.parent)])


def as_png(pixels: np.ndarray, folder: Path) -> np.ndarray:
    """One PNG a seed, as EDM's and DiT's sampling scripts write them, then read back."""
    folder.mkdir()
    paths = [folder / f"{seed:06d}.png" for seed in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def row(pixels: np.ndarray, what: str, target: float | None, folder: Path) -> None:
    """Compare on these images; every call writes to a place of its own, as overwriting costs more."""
    count, size = pixels.shape[:2]
    number = itertools.count()

    def checked(way: Callable[[np.ndarray, Path], np.ndarray], name: str) -> None:
        place = folder / f"{size}-{next(number)}" / name
        place.parent.mkdir()
        assert np.array_equal(way(pixels, place), pixels)

    name = f"output, {count} of {what} at {size}×{size}"
    compare(name, lambda: checked(as_tar, "0-of-1.tar"), lambda: checked(as_png, "png"), 5, target, count)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for size, (count, target) in SIZES.items():
            what, pixels = pictures(size, count)
            row(pixels, what, target, Path(temporary))


if __name__ == "__main__":
    main()
