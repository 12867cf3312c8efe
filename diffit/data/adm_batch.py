"""The data source ``adm``: ADM's reference batch of ImageNet, one npz file with images and statistics.

:mod:`diffit.store.adm_npz` describes the file. The archive holds its members as separate ``.npy`` files, which can be
mapped into memory.
"""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from diffit.cli import UserError
from diffit.data.listing import AGAIN
from diffit.data.origins import Address, Local
from diffit.fetch import Download, archive, mirrored
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
    source = nullcontext(files.user_file(spec["path"])) if spec["path"] else archive(_published(spec, out))
    with source as path:
        sha256 = files.sha256(path)
        if spec["sha256"] not in (None, sha256):
            raise UserError(
                f"{path} has the sha256 {sha256} instead of {spec['sha256']}; get the file again, or correct "
                "sha256: of the data set"
            )
        count = extract(path, out, spec["resolution"])
    hashes = {name: files.sha256(out / f"{name}.npy") for name in MEMBERS}
    return {"count": count, "files": hashes, "sha256": sha256, "statistics_images": spec["statistics_images"]}


def _published(spec: dict, out: Path) -> Download:
    resolution = spec["resolution"]
    if resolution not in URLS:
        raise UserError(
            f"ADM published ImageNet's reference batches at {' and '.join(map(str, URLS))}, none at {resolution}; set "
            "path: to your own file"
        )
    target = out / URLS[resolution].rpartition("/")[2]
    digest = f"sha256:{spec['sha256']}" if spec["sha256"] else None
    remedy = f"put it at {target}, or set path: of the data set to it"
    return Download(mirrored(URLS[resolution]), target, remedy, digest=digest)


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
