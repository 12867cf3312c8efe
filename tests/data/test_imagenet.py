"""ImageNet: tar, folders and parquet files are one data set, and less than the whole is never taken for it."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import archives
from helpers.server import Server, status
from PIL import Image

from diffit.cli import UserError
from diffit.data import imagenet_parquet, images
from diffit.data.imagenet_classes import NUMBERS, WNIDS
from diffit.data.sources import open_archive
from diffit.download import download
from diffit.shard import shard
from diffit.store.manifest import gather, read_images

REVISION = "49e2ee26f3810fb5a7536bbf732a7b07389a47b5"
SPEC = {
    "source": "imagenet", "resolution": 32, "path": None, "md5": None, "revision": REVISION, "subset": True,
    "labels": True, "resize": "center-crop",
}  # fmt: skip


@pytest.fixture(scope="module")
def sample(shared_data: Path) -> Path:
    """One real image of each of 141 classes, in the layout of ILSVRC: the folder that contains ``train``."""
    return shared_data / "imagenet_sample"


@pytest.fixture(scope="module")
def packed(sample: Path, tmp_path_factory) -> dict:
    """The description of the sample as a tar of tars, whose classes are not in order."""
    path = tmp_path_factory.mktemp("packed") / "ILSVRC2012_img_train.tar"
    pack(sample / "train", path)
    return {**SPEC, "path": str(path), "md5": hashlib.md5(path.read_bytes()).hexdigest()}


def pack(train: Path, path: Path) -> None:
    with tarfile.open(path, "w") as outer:
        for folder in sorted(train.iterdir(), reverse=True):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for picture in sorted(folder.iterdir(), reverse=True):
                    tar.add(picture, picture.name)
            member = tarfile.TarInfo(f"{folder.name}.tar")
            member.size = len(inner.getvalue())
            outer.addfile(member, io.BytesIO(inner.getvalue()))


def few(sample: Path, target: Path, count: int = 4) -> Path:
    """A copy of the first classes."""
    for folder in sorted((sample / "train").iterdir())[:count]:
        shutil.copytree(folder, target / folder.name)
    return target


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_there_are_a_thousand_classes_in_sorted_order(sample: Path):
    assert len(WNIDS) == len(set(WNIDS)) == 1000 and sorted(WNIDS) == WNIDS
    assert (NUMBERS["n01440764"], NUMBERS["n02119022"], NUMBERS["n15075141"]) == (0, 277, 999)  # tench, red fox, tissue
    assert {folder.name for folder in (sample / "train").iterdir()} <= set(WNIDS)


def test_tar_and_folders_give_the_same_bytes_with_classes_of_all_thousand(sample: Path, packed: dict, tmp_path: Path):
    folders = {**packed, "path": str(sample), "md5": None}
    for spec, name in (({**packed, "resolution": 256}, "tar"), ({**folders, "resolution": 256}, "folders")):
        download(spec, tmp_path / name)
        for k in range(2):
            shard(spec, tmp_path / name, tmp_path / f"data-{name}/imagenet/{k}-of-2.tar")
        manifest = gather(tmp_path / f"data-{name}/imagenet", 2)
        assert (manifest["count"], manifest["classes"], manifest["class_names"]) == (141, 1000, WNIDS)
    assert contents(tmp_path / "data-tar/imagenet") == contents(tmp_path / "data-folders/imagenet")
    labels = [label for _, _, label in read_images(tmp_path / "data-tar/imagenet")]
    assert labels == [WNIDS.index(folder.name) for folder in sorted((sample / "train").iterdir())]


def test_at_512_the_pictures_are_adms_crops_in_order(sample: Path, packed: dict, tmp_path: Path):
    spec = {**packed, "resolution": 512}
    download(spec, tmp_path / "archive")
    shard(spec, tmp_path / "archive", tmp_path / "imagenet/0-of-1.tar")
    gather(tmp_path / "imagenet", 1)
    read = list(read_images(tmp_path / "imagenet"))
    assert len(read) == 141 and {pixels.shape for _, pixels, _ in read} == {(512, 512, 3)}
    for i, path in list(enumerate(sorted((sample / "train").rglob("*.JPEG"))))[::20]:
        with Image.open(path) as opened:
            assert np.array_equal(read[i][1], np.asarray(images.center_crop(opened.convert("RGB"), 512)))
            assert read[i][2] == NUMBERS[path.parent.name]


def test_a_folder_may_be_named_with_or_without_train(sample: Path, tmp_path: Path):
    above, itself = (download({**SPEC, "path": str(path)}, tmp_path / "out") for path in (sample, sample / "train"))
    assert above == itself and above["count"] == 141


def test_pictures_come_as_they_are_stored(sample: Path, tmp_path: Path):
    """As ADM decodes them: not turned by their EXIF orientation, and a PNG under a JPEG's name without transparency."""
    root = few(sample, tmp_path / "train", 3)
    turned, disguised, _ = sorted(root.rglob("*.JPEG"))
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.open(turned)
    size = picture.size
    picture.save(turned, "JPEG", exif=exif)
    Image.new("RGBA", (40, 30), (200, 0, 0, 0)).save(disguised, "PNG")
    spec = {**SPEC, "path": str(root)}
    download(spec, tmp_path / "out")
    source, _ = open_archive(tmp_path / "out", spec)
    assert size[0] != size[1] and source.image(0).size == size
    assert source.image(1).mode == "RGB" and source.image(1).getpixel((0, 0)) == (200, 0, 0)


# --------------------------------------------------------------------------------------------- what is not whole


def test_less_than_the_whole_is_refused_unless_a_part_is_meant(packed: dict, tmp_path: Path):
    with pytest.raises(UserError, match=r"141 images of 141 classes instead .* \(n01443537 is missing, and 858 more"):
        download({**packed, "subset": False}, tmp_path / "out")
    assert not (tmp_path / "out/archive.json").exists()


def test_all_classes_with_too_few_pictures_are_refused(tmp_path: Path):
    for wnid in WNIDS:
        (tmp_path / "train" / wnid).mkdir(parents=True)
        (tmp_path / "train" / wnid / "1.JPEG").touch()
    with pytest.raises(UserError, match=r"1,000 images of 1,000 classes instead of ImageNet's 1,281,167 of 1,000;"):
        download({**SPEC, "path": str(tmp_path), "subset": False}, tmp_path / "out")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.999])
def test_a_tar_cut_short_is_refused(packed: dict, tmp_path: Path, kept: float):
    whole = Path(packed["path"]).read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError, match=r"cut\.tar .*get it again"):
        download({**packed, "path": str(cut)}, tmp_path / "out")
    assert not (tmp_path / "out/archive.json").exists()


def test_a_tar_with_another_md5_is_refused(packed: dict, tmp_path: Path):
    with pytest.raises(UserError, match=r"instead of 1d675b47d978889d74fa0da5fadfb00e; get it again .* or set md5:"):
        download({**packed, "md5": None}, tmp_path / "out")
    damaged = Path(shutil.copy(packed["path"], tmp_path / "damaged.tar"))
    with damaged.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"x")
    with pytest.raises(UserError, match=f"has the md5 .* instead of {packed['md5']}"):
        download({**packed, "path": str(damaged)}, tmp_path / "out")


@pytest.mark.parametrize("change", ["cut", "shifted", "gone"])
def test_a_tar_that_changed_since_its_listing_is_noticed(sample: Path, tmp_path: Path, change: str):
    path = tmp_path / "train.tar"
    pack(few(sample, tmp_path / "train"), path)
    spec = {**SPEC, "path": str(path), "md5": hashlib.md5(path.read_bytes()).hexdigest()}
    download(spec, tmp_path / "out")
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:30_000] if change == "cut" else bytes(512) + path.read_bytes())
    with pytest.raises(UserError, match=r"train\.tar (has changed since|is missing, although) .*--forcerun download"):
        open_archive(tmp_path / "out", spec)[0].image(0)


MISTAKES = {
    "nothing": (lambda root: None, {}, "in' does not exist; set path: to ILSVRC2012_img_train.tar"),
    "empty": (lambda root: root.mkdir(), {}, "holds no images of ImageNet"),
    "another class": (lambda root: (root / "n01440764").rename(root / "tench"), {}, "holds tench, which is not one of"),
    "md5 of a folder": (
        lambda root: None,
        {"md5": "0" * 32},
        "md5: applies only to ImageNet's tar, but path: is",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_imagenet_is_one_sentence(sample: Path, tmp_path: Path, mistake: str):
    spoil, changes, sentence = MISTAKES[mistake]
    if mistake not in ("nothing", "empty"):
        few(sample, tmp_path / "in")
    spoil(tmp_path / "in")
    with pytest.raises(UserError, match=sentence):
        download({**SPEC, "path": str(tmp_path / "in"), **changes}, tmp_path / "out")


def test_a_tar_can_be_left_while_it_is_read(tmp_path: Path):
    """On 7 GB of zeros, which take longer than the signal."""
    outer, inner = tarfile.TarInfo("n01440764.tar"), tarfile.TarInfo("n01440764_1.JPEG")
    outer.size, inner.size = 7 << 30, 6 << 30
    with (tmp_path / "big.tar").open("wb") as file:
        file.write(outer.tobuf() + inner.tobuf())
        file.truncate(outer.size + 20 * 512)
    spec = json.dumps({**SPEC, "path": str(tmp_path / "big.tar")})
    command = [sys.executable, "-m", "diffit.download", spec, str(tmp_path / "out")]
    process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    while not (tmp_path / "out").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert list((tmp_path / "out").iterdir()) == []


# ------------------------------------------------------------------------------------------------------- parquet


@pytest.fixture(scope="module")
def parquet(sample: Path, tmp_path_factory) -> Path:
    """The sample in two parquet files as the hub has them, shuffled, with row groups of 20."""
    root = tmp_path_factory.mktemp("parquet")
    paths = sorted((sample / "train").rglob("*.JPEG"))
    paths = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    rows = [(path.read_bytes(), f"{path.stem}_{path.parent.name}.JPEG", NUMBERS[path.parent.name]) for path in paths]
    for k in range(2):
        archives.parquet(root / f"data/train-{k:05d}-of-00002.parquet", rows[k * 71 : (k + 1) * 71])
    return root


def test_parquet_files_give_every_picture_in_their_own_order(sample: Path, parquet: Path, tmp_path: Path):
    spec = {**SPEC, "path": str(parquet)}
    assert download(spec, tmp_path / "archive")["count"] == 141
    for k in range(3):
        shard(spec, tmp_path / "archive", tmp_path / f"imagenet/{k}-of-3.tar")
    assert gather(tmp_path / "imagenet", 3)["classes"] == 1000
    read = [(label, pixels) for _, pixels, label in read_images(tmp_path / "imagenet")]
    labels = [label for label, _ in read]
    assert labels != sorted(labels)
    for label, pixels in read:
        (path,) = (sample / "train" / WNIDS[label]).iterdir()
        assert np.array_equal(pixels, np.asarray(images.center_crop(images.decode(path, "", as_stored=True), 32)))


def test_a_label_that_is_not_the_class_in_the_name_is_refused(tmp_path: Path):
    archives.parquet(tmp_path / "train-00000-of-00001.parquet", [(b"", "n01443537_5_n01443537.JPEG", 0)])
    with pytest.raises(UserError, match=r"n01443537_5_n01443537\.JPEG has the label 0, but its class has the number 1"):
        download({**SPEC, "path": str(tmp_path)}, tmp_path / "out")


@pytest.mark.parametrize("change", ["cut", "another", "gone", "no table"])
def test_parquet_files_that_are_damaged_or_changed_are_named(parquet: Path, tmp_path: Path, change: str):
    folder = Path(shutil.copytree(parquet, tmp_path / "in"))
    first, second = imagenet_parquet.paths(folder)
    spec = {**SPEC, "path": str(folder)}
    download(spec, tmp_path / "out")
    if change == "gone":
        first.unlink()
    else:
        content = {"cut": first.read_bytes()[:-9], "another": second.read_bytes(), "no table": b"PAR1"}[change]
        first.write_bytes(content)
    with pytest.raises(UserError, match=r"train-00000-of-00002\.parquet (is not a complete|has changed|is missing)"):
        open_archive(tmp_path / "out", spec)[0].image(0)


# ------------------------------------------------------------------------------------------------------- the hub


def ask(out: Path, **environment: str) -> subprocess.CompletedProcess:
    """The download stage with ``path: null``, in a process with a home and a hub of its own."""
    command = [sys.executable, "-m", "diffit.download", json.dumps(SPEC), str(out)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment = {**kept, "HF_HOME": str(out.parent / "home"), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_without_a_token_it_says_what_to_do_before_any_network(tmp_path: Path):
    ended = ask(tmp_path / "out", HF_ENDPOINT="http://127.0.0.1:9")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "needs a token" in ended.stderr and "accept the licence on the page of ILSVRC/imagenet-1k" in ended.stderr
    assert "set HF_TOKEN" in ended.stderr and "set path:" in ended.stderr


def test_without_the_licence_it_says_what_to_do(tmp_path: Path):
    with Server() as hub:
        hub.repository("ILSVRC/imagenet-1k", {}, REVISION, "dataset")
        hub.behave(f"/api/datasets/ILSVRC/imagenet-1k/tree/{REVISION}", status(403))
        ended = ask(tmp_path / "out", HF_ENDPOINT=hub.address, HF_TOKEN="hf_x")
    assert ended.returncode == 1
    assert "403 Forbidden; accept the licence on the page of ILSVRC/imagenet-1k" in ended.stderr.splitlines()[-1]


def test_without_a_network_it_says_what_to_do(tmp_path: Path):
    ended = ask(tmp_path / "out", HF_HUB_OFFLINE="1", HF_TOKEN="hf_x")
    assert ended.returncode == 1
    assert "could not be downloaded" in ended.stderr.splitlines()[-1] and "set path:" in ended.stderr


def test_the_files_of_the_hub_are_fetched_once_for_all_resolutions(parquet: Path, tmp_path: Path):
    contents = {f"data/{path.name}": path.read_bytes() for path in imagenet_parquet.paths(parquet)}
    with Server() as hub:
        paths = hub.repository("ILSVRC/imagenet-1k", contents, REVISION, "dataset")
        for name in ("imagenet256", "imagenet512"):
            ended = ask(tmp_path / name, HF_ENDPOINT=hub.address, HF_TOKEN="hf_x")
            assert ended.returncode == 0, ended.stderr
        assert [hub.asked(path) for path in paths] == [[None], [None]]
    record = json.loads((tmp_path / "imagenet512/archive.json").read_text())
    assert record["path"] == str(tmp_path / "imagenet-1k-49e2ee26") and record["count"] == 141
    assert open_archive(tmp_path / "imagenet256", SPEC)[0].image(140).mode == "RGB"
