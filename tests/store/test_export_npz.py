"""Samples as the one file that ADM's evaluator reads."""

import shutil

import numpy as np
import pytest

from diffit.cli import UserError
from diffit.store import export_npz
from diffit.store.manifest import read_images


def test_the_file_holds_all_images_and_labels_by_seed(labelled, tmp_path):
    out = tmp_path / "samples_1797x8x8x3.npz"
    export_npz.export(labelled, out)
    expected = list(read_images(labelled))
    with np.load(out) as stored:  # as ADM reads it
        assert stored["arr_0"].dtype == np.uint8 and stored["arr_0"].shape == (1797, 8, 8, 3)
        assert np.array_equal(stored["arr_0"], np.stack([image for _key, image, _label in expected]))
        assert stored["arr_1"].tolist() == [label for _key, _image, label in expected]


def test_a_name_that_says_another_shape_is_refused(labelled, tmp_path):
    with pytest.raises(UserError, match=r"use .*samples_1797x8x8x3\.npz"):
        export_npz.export(labelled, tmp_path / "samples_50000x256x256x3.npz")
    assert not list(tmp_path.iterdir())


def test_a_damaged_shard_leaves_nothing(labelled, tmp_path):
    folder = shutil.copytree(labelled, tmp_path / "images")
    content = bytearray((folder / "1-of-2.tar").read_bytes())
    content[2000] ^= 1
    (folder / "1-of-2.tar").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        export_npz.export(folder, tmp_path / "out" / "samples_1797x8x8x3.npz")
    assert not list((tmp_path / "out").iterdir())
