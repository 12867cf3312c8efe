"""The data source ``cifar10``: the 50,000 training images of CIFAR-10."""

import shutil
from contextlib import nullcontext
from pathlib import Path

from PIL import Image
from torchvision.datasets import CIFAR10

from diffit.cli import UserError
from diffit.data.listing import AGAIN
from diffit.data.origins import Address
from diffit.fetch import Download, archive, mirrored
from diffit.store import files
from diffit.store.tar_gz import extract

# The files of the archive with their bytes.
MEMBERS = {
    "batches.meta": 158,
    "data_batch_1": 31_035_704,
    "data_batch_2": 31_035_320,
    "data_batch_3": 31_035_999,
    "data_batch_4": 31_035_696,
    "data_batch_5": 31_035_623,
    "readme.html": 88,
    "test_batch": 31_035_526,
}


def origin(spec: dict) -> Address:
    """The URL of the archive."""
    return Address(CIFAR10.url)


def fetch(spec: dict, out: Path) -> dict:
    """Extract the archive at ``path``, or download it, into ``out``.

    Raises :class:`UserError` if the archive is missing, has another md5 or other members, or cannot be downloaded.
    """
    source = nullcontext(_checked(files.user_file(spec["path"]))) if spec.get("path") else archive(_published(out))
    folder = CIFAR10.base_folder
    with source as path, files.scratch_folder(out) as scratch:
        extract(path, scratch, {f"{folder}/{name}": size for name, size in MEMBERS.items()})
        names = [*sorted(name for name, _ in CIFAR10.train_list + CIFAR10.test_list), CIFAR10.meta["filename"]]
        hashes = {name: files.sha256(scratch / folder / name) for name in names}
        shutil.rmtree(out / folder, ignore_errors=True)
        (scratch / folder).replace(out / folder)
    return {"files": hashes, "sha256": files.sha256_of(hashes)}


def _checked(path: Path) -> Path:
    if (md5 := files.digest(path, "md5")) != CIFAR10.tgz_md5:
        raise UserError(
            f"{path} has the md5 {md5}, but {CIFAR10.filename} has {CIFAR10.tgz_md5}; get the archive again, or "
            "set path: null to download it"
        )
    return path


def _published(out: Path) -> Download:
    target = out / CIFAR10.filename
    remedy = f"put it at {target}, or set path: of the data set to it"
    return Download(mirrored(CIFAR10.url), target, remedy, digest=f"md5:{CIFAR10.tgz_md5}")


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
