"""Output of generated images: a tar of raw arrays against one PNG file per image.

    python -m bench.output

Both write the images and read them back. Ours also hashes, verifies and indexes the tar and waits until it is on disk.
The cost of PNG files is compression per pixel, so the gain is smaller for small images.
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
SIZES = {64: (2048, None), 256: (256, 20)}  # by resolution: number of images and target ratio


def pictures(size: int, count: int) -> tuple[str, np.ndarray]:
    """A description of the images and ``count`` of them, uint8 [count, size, size, 3]."""
    paths = sorted((SHARED / "imagenet_sample").rglob("*.JPEG"))
    if not paths:
        # Smoothed, because white noise does not compress.
        noise = np.random.default_rng(0).integers(0, 256, (count, size // 4, size // 4, 3), dtype=np.uint8)
        enlarged = [np.asarray(Image.fromarray(small).resize((size, size))) for small in noise]
        return "smoothed noise", np.stack(enlarged)
    crops = [np.asarray(images.center_crop(images.decode(path, path.name), size)) for path in paths]
    return "ImageNet", np.stack(list(itertools.islice(itertools.cycle(crops), count)))


def as_tar(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Write and read back a tar as sample and measure do."""
    samples = ((f"{seed:08d}", {"npy": encode_npy(image), "cls": b"0"}) for seed, image in enumerate(pixels))
    tars.write_tar(path, samples)
    gather(path.parent, 1)
    return np.stack([image for _key, image, _label in read_images(path.parent)])


def as_png(pixels: np.ndarray, folder: Path) -> np.ndarray:
    """Write and read back one PNG per seed, as EDM's and DiT's sampling scripts do."""
    folder.mkdir()
    paths = [folder / f"{seed:06d}.png" for seed in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def row(pixels: np.ndarray, what: str, target: float | None, folder: Path) -> None:
    """Compare on these images; every call writes to a new folder, because overwriting is slower."""
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
