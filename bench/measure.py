"""Features per second against clean-fid's loader and resizer with the same network, in one process.

    python -m bench.measure

Both start from a folder of PNGs and load the network from its file. Ours also hashes images and network, checks the
features and writes them to disk. clean-fid's loader runs with its default batch of 32 and without workers. Ours decodes
in one thread per core; clean-fid's tensor operations use the same cores.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.timing import compare
from diffit import download
from diffit.data import images
from diffit.measure import measure

SHARED = Path("../shared/data/imagenet_sample")
SIZES = {32: 64, 256: 64}  # number of images by resolution
REPEAT = 3


def write_pictures(folder: Path, size: int, count: int) -> str:
    """Write ``count`` PNGs of ``size``×``size`` pixels and return a description of them."""
    folder.mkdir()
    paths = sorted(SHARED.rglob("*.JPEG"))[:count]
    crops = [images.center_crop(images.decode(path, path.name), size) for path in paths]
    noise = np.random.default_rng(0)
    for number in range(count):
        picture = crops[number % len(crops)] if crops else noise.integers(0, 256, (size, size, 3), dtype=np.uint8)
        (folder / f"{number:04d}.png").write_bytes(images.png(picture))
    return "of ImageNet" if crops else "of noise"


def cleanfid(folder: Path, network: Path) -> np.ndarray:
    """The features of clean-fid's ``get_folder_features``, float32 [n, 2048]."""
    from cleanfid.fid import get_folder_features

    script = torch.jit.load(network / "inception.pt").eval().to(device())
    return get_folder_features(
        str(folder), lambda x: script((x - 128) / 128), num_workers=0, batch_size=32, device=device(), verbose=False
    )


def ours(folder: Path, network: Path, out: Path) -> np.ndarray:
    measure(folder, out, network)
    with np.load(out) as stored:
        return stored["features"]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        download.download({"source": "inception"}, root / "network")
        for size, count in SIZES.items():
            folder, out = root / str(size), root / f"{size}-features" / "0-of-1.npz"
            what = write_pictures(folder, size, count)
            us, them = ours(folder, root / "network", out), cleanfid(folder, root / "network")
            assert np.linalg.norm(us - them) < 1e-4 * np.linalg.norm(them), "the features differ"
            compare(
                f"features, {count} {what} at {size}×{size}",
                lambda folder=folder, out=out: ours(folder, root / "network", out),
                lambda folder=folder: cleanfid(folder, root / "network"),
                REPEAT,
                images=count,
            )


if __name__ == "__main__":
    main()
