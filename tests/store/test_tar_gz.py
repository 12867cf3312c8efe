"""Archives with known members: whole, or refused before anything is written."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from helpers import archives

from diffit.cli import UserError
from diffit.store import tar_gz

CONTENTS = {"a/one": b"1" * 1000, "a/two": b"2" * 2000}
SIZES = {name: len(data) for name, data in CONTENTS.items()}


def packed(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"1" * member.size))
    return path


def member(name: str, size: int = 0, **fields) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size = size
    for field, value in fields.items():
        setattr(found, field, value)
    return found


def refused(path: Path, folder: Path, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        tar_gz.extract(path, folder, SIZES)
    assert not folder.exists() or not list(folder.rglob("*"))


def test_the_known_members_are_extracted(tmp_path):
    archives.pack(tmp_path / "x.tar.gz", CONTENTS)
    tar_gz.extract(tmp_path / "x.tar.gz", tmp_path / "out", SIZES)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 2


@pytest.mark.parametrize(
    "last, sentence",
    [
        (member("../three", 10), r"unexpected member \.\./three"),
        (member("/etc/three", 10), "unexpected member /etc/three"),
        (member("a/three", 10), "unexpected member a/three"),
        (member("a/two", 2001), "the member a/two has 2,001 bytes instead of 2,000"),
        (member("a/two", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a/two is not a regular file"),
        (member("a/two", type=tarfile.LNKTYPE, linkname="a/one"), "a/two is not a regular file"),
        (member("a/two", type=tarfile.FIFOTYPE), "a/two is not a regular file"),
        (member("b", type=tarfile.DIRTYPE), "has no member a/two"),
    ],
)
def test_another_member_at_the_end_is_refused_and_nothing_is_written(tmp_path, last, sentence):
    refused(packed(tmp_path / "x.tar.gz", member("a/one", 1000), last), tmp_path / "out", sentence)


def test_what_inflates_without_end_is_refused(tmp_path):
    """A header in front of the members that claims and has 200 MB of names."""
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 200 << 20
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=1) as file:
        file.write(long.tobuf())
        for _ in range(200):
            file.write(bytes(1 << 20))
    refused(tmp_path / "x.tar.gz", tmp_path / "out", "inflates to more than its members")


def test_a_file_that_is_no_archive_or_ends_early_is_refused(tmp_path):
    archives.pack(tmp_path / "x.tar.gz", CONTENTS)
    content = (tmp_path / "x.tar.gz").read_bytes()
    for name, damaged in {"cut": content[: len(content) // 2], "text": b"text", "none": b""}.items():
        (tmp_path / name).write_bytes(damaged)
        refused(tmp_path / name, tmp_path / "out", "is not a complete .tar.gz archive|has no member")
