"""A user's own images: equal as a folder, a tar and an npz file; other files are refused."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffit.cli import UserError
from diffit.data import image_sets
from diffit.store import files

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / ("sub" if number == 4 else "") / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def pixels(source: image_sets.ImageSet) -> np.ndarray:
    return np.stack([image for _, image, _ in source.samples])


def test_a_folder_a_tar_and_an_npz_file_give_the_same_images(folder: Path):
    with tarfile.open(folder.parent / "mine.tar", "w") as tar:
        for path in sorted(folder.rglob("*"), reverse=True):
            tar.add(path, path.relative_to(folder), recursive=False)
    for name, save in [("plain.npz", np.savez), ("compressed.npz", np.savez_compressed)]:
        save(folder.parent / name, IMAGES, [3, 1, 4, 1, 5])
    for name in ("mine", "mine.tar", "plain.npz", "compressed.npz"):
        path = folder.parent / name
        source = image_sets.read(path)
        np.testing.assert_array_equal(pixels(source), IMAGES)
        assert (source.count, source.features_name, source.facts["dataset"]) == (5, "0-of-1.npz", name)
        if path.is_file():
            assert source.facts["content_sha256"] == source.sha256 == files.sha256(path)
    assert [label for _, _, label in image_sets.read(folder.parent / "plain.npz").samples] == [3, 1, 4, 1, 5]
    assert [key for key, _, _ in image_sets.read(folder.parent / "mine.tar").samples] == [
        "0.png", "1.png", "2.png", "3.png", "sub/4.png",
    ]  # fmt: skip


def test_an_npz_file_without_labels_has_label_0_and_may_hold_statistics_beside_the_images(tmp_path: Path):
    np.savez(tmp_path / "a.npz", arr_0=IMAGES, mu=np.zeros(3), sigma=np.eye(3))
    assert {label for _, _, label in image_sets.read(tmp_path / "a.npz").samples} == {0}


def test_npz_files_of_something_else_are_refused(tmp_path: Path):
    for said, arrays in {
        "no arr_0": {"features": IMAGES},
        r"float64 \[5, 6, 4, 3\] as arr_0": {"arr_0": IMAGES / 255},
        r"uint8 \[5, 6, 4\] as arr_0": {"arr_0": IMAGES[..., 0]},
        "2 labels for 5 images": {"arr_0": IMAGES, "arr_1": np.arange(2)},
    }.items():
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(UserError, match=said):
            image_sets.read(tmp_path / "a.npz")


def test_damaged_and_missing_files_are_refused(folder: Path):
    for name in ("no.npz", "no.tar"):
        with pytest.raises(UserError, match="is missing"):
            image_sets.read(folder.parent / name)
    np.savez(folder.parent / "a.npz", IMAGES)
    whole = (folder.parent / "a.npz").read_bytes()
    (folder.parent / "a.npz").write_bytes(whole[:-50])
    with pytest.raises(UserError, match="damaged"):
        image_sets.read(folder.parent / "a.npz")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    (folder.parent / "a.npz").write_bytes(flipped)
    with pytest.raises(UserError, match="damaged"):
        list(image_sets.read(folder.parent / "a.npz").samples)
    (folder.parent / "a.tar").write_bytes(b"no tar at all")
    with pytest.raises(UserError, match="damaged"):
        image_sets.read(folder.parent / "a.tar")
    with tarfile.open(folder.parent / "empty.tar", "w") as tar:
        tar.add(folder / "notes.txt", "notes.txt")
    with pytest.raises(UserError, match="holds no images"):
        image_sets.read(folder.parent / "empty.tar")
