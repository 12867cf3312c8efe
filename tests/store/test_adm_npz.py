"""ADM's batches: checked before anything is inflated, and the earlier files stay until all are extracted."""

import zipfile

import numpy as np
import pytest
from helpers import archives

from diffit.cli import UserError
from diffit.store import adm_npz


@pytest.fixture
def batch(tmp_path):
    return archives.adm_batch(tmp_path / "batch.npz", np.full((2, 8, 8, 3), 7, np.uint8))


def rewritten(batch, name: str, content: bytes):
    """A copy of a batch in which one member is replaced."""
    path = batch.with_name("changed.npz")
    with zipfile.ZipFile(batch) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, content if member == f"{name}.npy" else old.read(member))
    return path


def test_all_members_are_extracted_and_the_images_counted(batch, tmp_path):
    assert adm_npz.extract(batch, tmp_path / "out", 8) == 2
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted(adm_npz.MEMBERS)
    assert (np.load(tmp_path / "out/arr_0.npy") == 7).all()


@pytest.mark.parametrize(
    "name, change, sentence",
    [
        ("mu", lambda content: content + bytes(1 << 26), r"holds mu of 67,125,376 bytes instead of 16,512"),
        ("arr_0", lambda content: content[:-1], "holds arr_0 of 511 bytes instead of 512"),
        ("arr_0", lambda content: b"no array", "arr_0 is not an array"),
        ("sigma", lambda content: content.replace(b"<f8", b"<i8"), "holds sigma of int64"),
    ],
)
def test_a_member_of_another_form_is_refused_before_anything_is_written(batch, tmp_path, name, change, sentence):
    with zipfile.ZipFile(batch) as opened:
        path = rewritten(batch, name, change(opened.read(f"{name}.npy")))
    with pytest.raises(UserError, match=sentence):
        adm_npz.extract(path, tmp_path / "out", 8)
    assert not list((tmp_path / "out").iterdir())


def test_damaged_bytes_leave_the_earlier_files(batch, tmp_path):
    adm_npz.extract(batch, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    content = bytearray(batch.read_bytes())
    with zipfile.ZipFile(batch) as opened:
        content[opened.getinfo("sigma_s.npy").header_offset + 200] ^= 255
    batch.write_bytes(content)
    with pytest.raises(UserError, match="is not a reference batch of ADM"):
        adm_npz.extract(batch, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
