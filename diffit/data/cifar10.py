"""The data source ``cifar10``: the 50,000 training images of CIFAR-10."""

import hashlib
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import extract_archive

from diffit.cli import UserError
from diffit.data.listing import AGAIN
from diffit.data.origins import Address
from diffit.store import files

# Not OSError in general, because a full disk must not be reported as a network error. torchvision raises RuntimeError
# for a wrong md5.
_NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, RuntimeError)


def origin(spec: dict) -> Address:
    """The URL of the archive."""
    return Address(CIFAR10.url)


def fetch(spec: dict, out: Path) -> dict:
    """Extract the archive at ``path``, or download it, into ``out``.

    Raises :class:`UserError` if the archive is missing, has another md5 or cannot be downloaded.
    """
    with files.scratch_folder(out) as scratch:
        if spec.get("path"):
            extract_archive(str(_archive(files.user_file(spec["path"]))), str(scratch))
        else:
            _download(scratch)
        batches = scratch / CIFAR10.base_folder
        names = [*sorted(name for name, _ in CIFAR10.train_list + CIFAR10.test_list), CIFAR10.meta["filename"]]
        hashes = {name: files.sha256(batches / name) for name in names}
        shutil.rmtree(out / CIFAR10.base_folder, ignore_errors=True)
        batches.replace(out / CIFAR10.base_folder)
    return {"files": hashes, "sha256": files.sha256_of(hashes)}


def _archive(path: Path) -> Path:
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != CIFAR10.tgz_md5:
        raise UserError(
            f"{path} has the md5 {md5}, but {CIFAR10.filename} has {CIFAR10.tgz_md5}; get the archive again, or "
            "set path: null to download it"
        )
    return path


def _download(folder: Path) -> None:
    try:
        CIFAR10(folder, download=True)
    except _NETWORK_ERRORS as error:
        raise UserError(
            f"CIFAR-10 could not be downloaded ({error}); put {CIFAR10.filename} on this machine and set "
            "path: of the data set to it"
        ) from error


class Cifar10:
    """The 50,000 training images of CIFAR-10, 32×32, in the order of the published batches."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        try:
            batches = CIFAR10(archive, train=True)  # checks the md5 of each batch
        except RuntimeError:
            raise UserError(f"the CIFAR-10 batches in {archive} are missing or damaged; {AGAIN}") from None
        self._pixels, self.labels, self.class_names = batches.data, batches.targets, batches.classes

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self._pixels[i])

    def name(self, i: int) -> str:
        return f"CIFAR-10 image {i}"


open_images = Cifar10
