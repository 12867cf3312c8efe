"""shard: every image once, in order, at the data set's resolution, with equal bytes each time."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from diffit.cli import UserError
from diffit.data.shard_ranges import shard_range
from diffit.download import download
from diffit.shard import main, shard
from diffit.store import tars
from diffit.store.manifest import gather, read_images

DIGITS = {"source": "digits", "resolution": 8, "labels": True, "resize": "center-crop", "min_side": 8, "path": None}


def folder_spec(path: Path, **changes) -> dict:
    return {**DIGITS, "source": "folder", "path": str(path), "resolution": 32, "labels": False, **changes}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    archive = tmp_path_factory.mktemp("archives") / "digits"
    download(DIGITS, archive)
    return archive


@pytest.fixture
def cifar_folder(shared_data: Path, tmp_path: Path) -> Path:
    """Four real CIFAR-10 pictures of three classes each, as JPEG in class folders."""
    root = tmp_path / "cifar 'ten' $(touch x)"
    with zipfile.ZipFile(shared_data / "cifar10_jpeg.zip") as pack:
        for name in ("cat", "airplane", "ship"):
            for i in range(4):
                (root / name).mkdir(parents=True, exist_ok=True)
                (root / name / f"{i}.jpg").write_bytes(pack.read(f"train/{name}/{i:04d}.jpg"))
    return root


def test_shards_are_contiguous_and_differ_by_one_at_most():
    for count, n in ((10, 3), (1797, 64), (5, 5), (7, 1)):
        ranges = [shard_range(k, n, count) for k in range(n)]
        assert [i for r in ranges for i in r] == list(range(count))
        assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_more_shards_than_images_are_refused(digits: Path, tmp_path: Path):
    with pytest.raises(UserError, match="shards: 2000 are more than the 1797 images"):
        shard(DIGITS, digits, tmp_path / "digits/0-of-2000.tar")


def test_digits_keep_every_scan_and_its_label(digits: Path, tmp_path: Path):
    for k in range(2):
        shard(DIGITS, digits, tmp_path / f"digits/{k}-of-2.tar")
    manifest = gather(tmp_path / "digits", 2)
    assert manifest["count"] == 1797 and manifest["classes"] == 10 and manifest["dataset"] == "digits"
    assert manifest["resolution"] == 8 and manifest["resize"] == "center-crop"
    assert manifest["class_names"] == [str(i) for i in range(10)]
    original = load_digits()
    keys, pixels, labels = zip(*read_images(tmp_path / "digits"), strict=True)
    assert keys == tuple(f"{i:08d}" for i in range(1797)) and list(labels) == original.target.tolist()
    grey = np.stack(pixels)
    assert (grey == grey[..., :1]).all() and grey.min() == 0 and grey.max() == 255
    assert np.array_equal(np.rint(grey[..., 0] * (16 / 255)), original.images)


def test_digits_grow_by_bicubic_and_never_shrink(digits: Path, tmp_path: Path):
    spec = {**DIGITS, "resolution": 20}
    shard(spec, digits, tmp_path / "digits/7-of-1797.tar")
    (_, sample), *_ = tars.read_tar(tmp_path / "digits/7-of-1797.tar")
    scan = Image.fromarray(np.rint(load_digits().images[7] * (255 / 16)).astype(np.uint8)).convert("RGB")
    assert np.array_equal(sample["png"], np.asarray(scan.resize((20, 20), Image.Resampling.BICUBIC)))
    with pytest.raises(UserError, match="resolution: 7 is below the digits' own 8"):
        shard({**DIGITS, "resolution": 7}, digits, tmp_path / "digits/0-of-2.tar")


def test_without_labels_there_are_no_classes(digits: Path, tmp_path: Path):
    record = shard({**DIGITS, "labels": False}, digits, tmp_path / "digits/100-of-200.tar")
    assert record["classes"] == 0 and record["class_names"] == []
    assert {sample["cls"] for _, sample in tars.read_tar(tmp_path / "digits/100-of-200.tar")} == {0}


def test_same_input_gives_the_same_bytes_of_every_file(cifar_folder: Path, tmp_path: Path):
    """Also in another process, at another time, and from a copy of the pictures in another place."""
    copy = Path(shutil.copytree(cifar_folder, tmp_path / "copy"))
    download(folder_spec(cifar_folder, labels=True), tmp_path / "one")
    download(folder_spec(copy, labels=True), tmp_path / "two")
    for k in range(2):
        shard(folder_spec(cifar_folder, labels=True), tmp_path / "one", tmp_path / f"data/set/{k}-of-2.tar")
        spec, out = folder_spec(copy, labels=True), tmp_path / f"again/set/{k}-of-2.tar"
        command = [sys.executable, "-m", "diffit.shard", json.dumps(spec), tmp_path / "two", out]
        subprocess.run(command, check=True)
    first = {p.name: p.read_bytes() for p in (tmp_path / "data/set").iterdir()}
    assert len(first) == 6
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "again/set").iterdir()}


def test_a_folder_keeps_its_pixels_and_classes(cifar_folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = folder_spec(cifar_folder, labels=True, resize="none")
    download(spec, tmp_path / "archive")
    for k in range(3):
        monkeypatch.setattr("sys.argv", ["shard", json.dumps(spec), "archive", f"data/my set/{k}-of-3.tar"])
        main()
    assert gather(Path("data/my set"), 3)["class_names"] == ["airplane", "cat", "ship"]
    read = list(read_images(Path("data/my set")))
    assert [label for _, _, label in read] == [0] * 4 + [1] * 4 + [2] * 4
    ship = Image.open(cifar_folder / "ship/3.jpg").convert("RGB")
    assert np.array_equal(read[11][1], np.asarray(ship))
    assert not (tmp_path / "x").exists()


def test_photographs_are_cropped_as_adm_does(shared_data: Path, tmp_path: Path, golden):
    root = tmp_path / "train"
    for wnid in ("n01440764", "n01514668"):
        shutil.copytree(shared_data / "imagenet_sample/train" / wnid, root / wnid)
    spec = folder_spec(root, resolution=64, labels=True)
    download(spec, tmp_path / "archive")
    shard(spec, tmp_path / "archive", tmp_path / "imagenet/0-of-1.tar")
    crops = golden("adm_center_crop")
    samples = tars.read_tar(tmp_path / "imagenet/0-of-1.tar")
    for (_, sample), wnid in zip(samples, ("n01440764", "n01514668"), strict=True):
        assert np.array_equal(sample["png"], crops[f"{wnid}_64"].numpy())


def test_mixed_kinds_of_pictures_become_rgb_of_one_size(cifar_folder: Path, tmp_path: Path):
    picture = Image.open(cifar_folder / "cat/0.jpg").resize((40, 30))
    root = tmp_path / "mixed"
    root.mkdir()
    turned = Image.Exif()
    turned[274] = 6
    picture.convert("L").save(root / "grey.png")
    picture.convert("CMYK").save(root / "cmyk.jpg")
    picture.quantize(8).save(root / "palette.gif")
    picture.convert("RGBA").save(root / "rgba.webp")
    picture.save(root / "turned.JPG", exif=turned)
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(root / "deep.tiff")
    download(folder_spec(root), tmp_path / "archive")
    shard(folder_spec(root), tmp_path / "archive", tmp_path / "mixed set/0-of-1.tar")
    read = [sample["png"] for _, sample in tars.read_tar(tmp_path / "mixed set/0-of-1.tar")]
    assert len(read) == 6 and {image.shape for image in read} == {(32, 32, 3)}


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


BAD_PICTURES = {
    "cut": (broken, r"0\.jpg is not a readable image"),
    "dot": (lambda path: Image.new("RGB", (1, 1)).save(path), r"0\.jpg has 1 by 1 pixels, below min_side: 8"),
    "empty": (lambda path: path.write_bytes(b""), r"0\.jpg is not a readable image"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_a_bad_picture_is_named_and_the_earlier_shard_stays(cifar_folder: Path, tmp_path: Path, kind: str):
    spec, out = folder_spec(cifar_folder), tmp_path / "data/0-of-1.tar"
    download(spec, tmp_path / "archive")
    shard(spec, tmp_path / "archive", out)
    before = {p.name: p.read_bytes() for p in out.parent.iterdir()}
    spoil, sentence = BAD_PICTURES[kind]
    spoil(cifar_folder / "cat/0.jpg")
    download(spec, tmp_path / "archive")
    with pytest.raises(UserError, match=f"cat/{sentence}"):
        shard(spec, tmp_path / "archive", out)
    assert {p.name: p.read_bytes() for p in out.parent.iterdir()} == before


@pytest.mark.parametrize("change", ["grown", "vanished"])
def test_a_folder_that_changed_since_its_listing_asks_for_a_new_download(cifar_folder, tmp_path, change):
    spec, picture = folder_spec(cifar_folder), cifar_folder / "cat/1.jpg"
    download(spec, tmp_path / "archive")
    if change == "grown":
        picture.write_bytes(picture.read_bytes() + b"x")
    else:
        picture.unlink()
    with pytest.raises(UserError, match=r"cat/1\.jpg (has|is missing).*snakemake --forcerun download"):
        shard(spec, tmp_path / "archive", tmp_path / "data/0-of-1.tar")
    assert not (tmp_path / "data/0-of-1.tar").exists()


def test_archives_that_do_not_fit_the_description_are_refused(cifar_folder: Path, digits: Path, tmp_path: Path):
    spec, archive, out = folder_spec(cifar_folder), tmp_path / "archive", tmp_path / "data/0-of-1.tar"
    with pytest.raises(UserError, match=r"archive\.json is missing; run the download stage"):
        shard(spec, archive, out)
    with pytest.raises(UserError, match="holds digits, but the config says folder"):
        shard(spec, digits, out)
    download(spec, archive)
    with pytest.raises(UserError, match=r"was not listed with labels: True"):
        shard({**spec, "labels": True}, archive, out)
    (archive / "listing.jsonl").write_text('["cat/0.jpg",1]\n')
    with pytest.raises(UserError, match=r"listing\.jsonl is missing, or archive\.json records another sha256"):
        shard(spec, archive, out)
    with pytest.raises(UserError, match="K-of-N"):
        shard(spec, archive, tmp_path / "data/images.tar")


def test_a_full_disk_is_one_line_and_leaves_the_earlier_shard(digits: Path, tmp_path: Path):
    """On a real file system of 3 MB, mounted for one shell only; the shard before it takes most of that."""
    script = """
        mount -t tmpfs -o size=3m tmpfs "$1" || exit 77
        "$2" -m diffit.shard "$3" "$4" "$1/0-of-2.tar" && cd "$1" && sha256sum * > "$6/before" || exit 78
        "$2" -m diffit.shard "$5" "$4" "$1/0-of-2.tar" 2> "$6/stderr"
        echo $? > "$6/status"; ls -A > "$6/names"; sha256sum * > "$6/after"
    """
    disk, notes = tmp_path / "disk", tmp_path / "notes"
    disk.mkdir()
    notes.mkdir()
    if not shutil.which("unshare"):
        pytest.skip("needs unshare to mount a small file system")
    specs = [json.dumps(DIGITS), json.dumps({**DIGITS, "resolution": 48})]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", disk, sys.executable, specs[0], digits, specs[1], notes]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode in (1, 77):
        pytest.skip(f"cannot mount a small file system here: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    assert (notes / "status").read_text() == "1\n"
    assert (notes / "names").read_text().split() == ["0-of-2.index.npz", "0-of-2.json", "0-of-2.tar"]
    assert (notes / "after").read_text() == (notes / "before").read_text()
    message = (notes / "stderr").read_text()
    assert message.startswith("error: cannot write") and message.count("\n") == 1
