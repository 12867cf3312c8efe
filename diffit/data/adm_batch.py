"""The data source ``adm``: ADM's reference batch of ImageNet, one npz file with images and statistics.

:mod:`diffit.store.adm_npz` describes the file. The archive holds its members as separate ``.npy`` files, which can be
mapped into memory.
"""

from pathlib import Path

import numpy as np
import pooch
from PIL import Image

from diffit.cli import UserError, progress
from diffit.data.listing import AGAIN
from diffit.data.origins import Address, Local
from diffit.store import files
from diffit.store.adm_npz import IMAGES, MEMBERS, extract

_FOLDER = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet"
URLS = {256: f"{_FOLDER}/256/VIRTUAL_imagenet256_labeled.npz", 512: f"{_FOLDER}/512/VIRTUAL_imagenet512.npz"}


def origin(spec: dict) -> Address | Local:
    """The URL of the batch of this resolution; :class:`Local` if ADM published none."""
    url = URLS.get(spec["resolution"])
    return Address(url) if url else Local()


def fetch(spec: dict, out: Path) -> dict:
    """Take the file at ``path``, or download the batch of the resolution, and extract its members into ``out``.

    Raises :class:`UserError` for a file that is missing, is not a reference batch, or has another sha256 or resolution.
    """
    path = files.user_file(spec["path"]) if spec["path"] else _downloaded(spec["resolution"], out)
    sha256 = files.sha256(path)
    if spec["sha256"] not in (None, sha256):
        raise UserError(
            f"{path} has the sha256 {sha256} instead of {spec['sha256']}; get the file again, or correct "
            "sha256: of the data set"
        )
    extract(path, out)
    shape = np.load(out / f"{IMAGES}.npy", mmap_mode="r").shape
    if shape[1:] != (spec["resolution"], spec["resolution"], 3):
        raise UserError(
            f"{path} holds images {list(shape[1:])}, but the data set's resolution is {spec['resolution']}; use the "
            "batch of that resolution"
        )
    if not spec["path"]:
        path.unlink()  # all members are extracted
    hashes = {name: files.sha256(out / f"{name}.npy") for name in MEMBERS}
    return {"count": shape[0], "files": hashes, "sha256": sha256, "statistics_images": spec["statistics_images"]}


def _downloaded(resolution: int, out: Path) -> Path:
    if resolution not in URLS:
        raise UserError(
            f"ADM published ImageNet's reference batches at {' and '.join(map(str, URLS))}, none at {resolution}; set "
            "path: to your own file"
        )
    url = URLS[resolution]
    try:
        bar = progress(desc=url.rpartition("/")[2], unit="B", unit_scale=True)
        downloader = pooch.HTTPDownloader(progressbar=bar, timeout=60)
        return Path(pooch.retrieve(url, None, url.rpartition("/")[2], out, downloader=downloader))
    except (OSError, ValueError) as error:  # exceptions of requests are OSErrors
        if files.write_error(error):
            raise
        raise UserError(
            f"{url} could not be downloaded ({error}); download it elsewhere and set path: of the data set to it"
        ) from error


class AdmBatch:
    """The images of a reference batch. They have no labels."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        path = archive / f"{IMAGES}.npy"
        if not path.is_file() or files.sha256(path) != record["files"][IMAGES]:
            raise UserError(f"{path} is missing or damaged; {AGAIN}")
        self._images = np.load(path, mmap_mode="r", allow_pickle=False)
        self._path, self.class_names, self.labels = path, [], [0] * len(self._images)

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self._images[i])

    def name(self, i: int) -> str:
        return f"image {i} of {self._path}"


open_images = AdmBatch
