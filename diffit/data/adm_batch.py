"""ADM's reference batches: images of a training set with the statistics of all of it, published as one npz file.

``arr_0`` are the images, uint8 [n, H, W, 3]; ``mu`` and ``sigma`` the mean and covariance of Inception's features,
``mu_s`` and ``sigma_s`` those of the spatial ones (https://github.com/openai/guided-diffusion, evaluations/). Here a
batch is a data set like any other, whose archive holds the members of the file as arrays that can be mapped.
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

_PLACE = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet"
URLS = {256: f"{_PLACE}/256/VIRTUAL_imagenet256_labeled.npz", 512: f"{_PLACE}/512/VIRTUAL_imagenet512.npz"}


def origin(spec: dict) -> Address | Local:
    """Where the batch of this resolution is downloaded from."""
    url = URLS.get(spec["resolution"])
    return Address(url) if url else Local()


def fetch(spec: dict, out: Path) -> dict:
    """The batch from ADM's address for its resolution, or from the file at ``path``, as one ``.npy`` a member."""
    path = Path(spec["path"]).expanduser() if spec["path"] else _downloaded(spec["resolution"], out)
    if not path.is_file():
        raise UserError(f"path: {path} is no file here; put it there or correct the key in the config")
    sha256 = files.sha256(path)
    if spec["sha256"] not in (None, sha256):
        raise UserError(
            f"{path} has the sha256 {sha256} instead of {spec['sha256']}; get it again or correct the data set's sha256"
        )
    extract(path, out)
    shape = np.load(out / f"{IMAGES}.npy", mmap_mode="r").shape
    if shape[1:] != (spec["resolution"], spec["resolution"], 3):
        raise UserError(
            f"{path} holds images {list(shape[1:])}, and the data set's resolution is {spec['resolution']}; name the "
            "batch of that resolution"
        )
    if not spec["path"]:
        path.unlink()  # its members are there
    hashes = {name: files.sha256(out / f"{name}.npy") for name in MEMBERS}
    return {"count": shape[0], "files": hashes, "sha256": sha256, "statistics_images": spec["statistics_images"]}


def _downloaded(resolution: int, out: Path) -> Path:
    if resolution not in URLS:
        raise UserError(
            f"ADM published ImageNet's reference batches at {' and '.join(map(str, URLS))}, none at {resolution}; set "
            "path: to a file of your own"
        )
    url = URLS[resolution]
    try:
        bar = progress(desc=url.rpartition("/")[2], unit="B", unit_scale=True)
        downloader = pooch.HTTPDownloader(progressbar=bar, timeout=60)
        return Path(pooch.retrieve(url, None, url.rpartition("/")[2], out, downloader=downloader))
    except (OSError, ValueError) as error:  # requests' own are OSErrors
        if files.write_error(error):
            raise
        raise UserError(
            f"{url} could not be downloaded ({error}); fetch it where the internet is and set path: of the data set"
        ) from error


class Published:
    """The images of a batch."""

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


open_images = Published
