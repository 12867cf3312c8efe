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

# Not OSError, of which a full disk is one. RuntimeError is torchvision's for a wrong md5.
_NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, RuntimeError)


def origin(spec: dict) -> Address:
    """Where the archive is downloaded from."""
    return Address(CIFAR10.url)


def fetch(spec: dict, out: Path) -> dict:
    """The batches of CIFAR-10 from torchvision's address, or from the archive at ``path``; checked by their md5."""
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
            f"set path: null to download it"
        )
    return path


def _download(folder: Path) -> None:
    try:
        CIFAR10(folder, download=True)
    except _NETWORK_ERRORS as error:
        raise UserError(
            f"CIFAR-10 could not be downloaded ({error}); put {CIFAR10.filename} on this machine and name it "
            f"under path: in the data set's config"
        ) from error


class Cifar10:
    """The 50,000 training pictures of CIFAR-10, 32×32, in the order of the published batches."""

    def __init__(self, archive: Path, record: dict, spec: dict):
        try:
            batches = CIFAR10(archive, train=True)  # compares each batch with its md5
        except RuntimeError:
            raise UserError(f"the CIFAR-10 batches in {archive} are missing or damaged; {AGAIN}") from None
        self._pixels, self.labels, self.class_names = batches.data, batches.targets, batches.classes

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self._pixels[i])

    def name(self, i: int) -> str:
        return f"CIFAR-10 picture {i}"


open_images = Cifar10
