"""Downloaded archives that are needed only until they are extracted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffit.cli import UserError
from diffit.fetch.transfer import Download, fetch


@contextmanager
def archive(download: Download) -> Iterator[Path]:
    """Download an archive and remove it at the end: when it is extracted, and when it is refused (:class:`UserError`).

    It stays if the extraction is interrupted or the disk is full, so that the next run need not download it again.
    """
    path = fetch(download)
    try:
        yield path
    except UserError:
        path.unlink()
        raise
    path.unlink()
