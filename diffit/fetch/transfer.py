"""Download files over HTTP: ``NAME.part`` grows, is resumed, is checked, and becomes ``NAME``.

A try fails after the time-out without data, or if data come more slowly than :data:`SLOWEST`. The next one asks for the
rest of the file. Ctrl-C and SIGTERM leave the ``.part``, from which the next run resumes.
"""

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests
import urllib3
from requests.auth import AuthBase
from tqdm import tqdm

from diffit.cli import UserError, progress
from diffit.fetch.digests import mismatch
from diffit.fetch.policy import StoppedError, TransferError, persevere, printable, timeout
from diffit.fetch.reasons import answer, may_recover, reason
from diffit.store import files

log = logging.getLogger("diffit")

CHUNK = 1 << 20
SLOWEST = 1_000  # bytes per second


@dataclass(frozen=True)
class Download:
    """One file to download.

    Args:
        url: its address.
        target: where it appears when it is complete.
        remedy: the last part of the error message: what the user can do.
        size: its bytes, if known.
        digest: its hash, if known: ``md5:…``, ``sha1:…``, ``sha256:…`` or ``git:…`` (git's hash of a blob).
        auth: what identifies the user to the server at ``url``; it is not sent to other servers after a redirect.
        denied: the remedy if the server answers 401 or 403.
        trusted: take a file that is at ``target`` by its size; otherwise its hash is checked as well.
    """

    url: str
    target: Path
    remedy: str
    size: int | None = None
    digest: str | None = None
    auth: AuthBase | None = None
    denied: str = ""
    trusted: bool = False

    @property
    def part(self) -> Path:
        """The unfinished file."""
        return self.target.with_name(f"{self.target.name}.part")


def fetch(download: Download) -> Path:
    """Download a file, unless it is there, and return its path.

    Raises :class:`UserError` if it cannot be downloaded or is not the expected file. Another process that downloads the
    same file is waited for.
    """
    with _bar(download.target.name, download.size) as bar:
        _Transfer(download, bar).run()
    return download.target


def fetch_all(downloads: Sequence[Download], name: str, workers: int = 4) -> None:
    """Download several files, ``workers`` at a time, under one progress bar. The first error ends all of them."""
    stop = threading.Event()
    sizes = [download.size for download in downloads]
    total = None if None in sizes else sum(sizes)
    with _bar(name, total) as bar, ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(_Transfer(download, bar, stop, shared=True).run) for download in downloads]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            stop.set()
            for waiting in running:
                waiting.cancel()
            raise


def reason_unreachable(url: str) -> str | None:
    """Why a file cannot be downloaded, None if the server offers it. Nothing is downloaded."""
    try:
        with requests.head(url, timeout=timeout(), allow_redirects=True) as response:
            return None if response.ok else answer(response)
    except requests.RequestException as error:
        return reason(error)


def _bar(name: str, total: int | None) -> tqdm:
    return progress(total=total, desc=name, unit="B", unit_scale=True, unit_divisor=1000)


class _Transfer:
    """The tries to download one file.

    Args:
        download: the file.
        bar: counts the bytes of the file.
        stop: ends the download early.
        shared: whether the bar counts other files as well.
    """

    def __init__(self, download: Download, bar: tqdm, stop: threading.Event | None = None, shared: bool = False):
        self._download, self._bar, self._stop, self._shared = download, bar, stop or threading.Event(), shared
        self._etag, self._shown = None, None

    def run(self) -> None:
        """Download the file, unless it is there."""
        download = self._download
        with _only_one(download) as part:
            if part is None:
                self._check_existing()
                return
            log.info("downloading %s from %s", download.target.name, printable(download.url))
            persevere(
                lambda: self._attempt(part),
                download.target.name,
                download.url,
                download.remedy,
                download.denied,
                self._stop,
            )
            os.fsync(part.fileno())
            download.part.replace(download.target)

    def _check_existing(self) -> None:
        """Check a file that an earlier download or the user has put at the target."""
        path, size, digest = self._download.target, self._download.size, self._download.digest
        if size not in (None, path.stat().st_size):
            raise UserError(f"{path} has {path.stat().st_size:,} bytes instead of {size:,}; delete it to download it")
        if digest and not self._download.trusted and (found := mismatch(path, digest)):
            raise UserError(f"{path}: {found}; delete it to download it")
        self._show(path.stat().st_size)

    def _attempt(self, part: BinaryIO) -> None:
        size = self._download.size
        offset = part.seek(0, os.SEEK_END)
        if size is not None and offset > size:
            part.truncate(0)
            offset = 0
        if size is None or offset < size:
            try:
                self._transfer(part, offset)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                received = part.seek(0, os.SEEK_END) - offset
                final = isinstance(error, ValueError | requests.TooManyRedirects)  # an address that cannot work
                raise TransferError(reason(error), final, received=received) from error
        self._verify(part)

    def _transfer(self, part: BinaryIO, offset: int) -> None:
        headers = {"Accept-Encoding": "identity"}  # so that lengths are those of the file
        if offset:
            headers["Range"] = f"bytes={offset}-"
            headers |= {"If-Range": self._etag} if self._etag else {}
        url, seconds = self._download.url, timeout()
        with requests.get(url, headers=headers, auth=self._download.auth, stream=True, timeout=seconds) as response:
            start = self._start(response, part, offset)
            if start is None:
                return
            etag = response.headers.get("ETag", "")
            self._etag = None if etag.startswith("W/") else etag or None
            self._receive(response, part, start, self._expected(response, start))

    def _start(self, response: requests.Response, part: BinaryIO, offset: int) -> int | None:
        """The position at which the answer begins, None if nothing is missing. Removes what cannot be resumed."""
        found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if response.status_code == 206 and offset and found and found[1] == str(offset):
            return offset
        if response.status_code == 416 and found and found[2] == str(offset):
            return None
        if response.status_code == 200:
            part.truncate(0)  # the server sends the whole file
            return 0
        if response.status_code in (206, 416):
            part.truncate(0)
            raise TransferError("the server cannot resume the file")
        status = response.status_code
        raise TransferError(answer(response), final=not may_recover(status), status=status)

    def _expected(self, response: requests.Response, start: int) -> int | None:
        """The size of the whole file, if it is known or announced."""
        size, length = self._download.size, response.headers.get("Content-Length", "")
        announced = start + int(length) if length.isdecimal() else None
        if None not in (size, announced) and size != announced:
            raise TransferError(f"the server offers {announced:,} bytes instead of {size:,}", damaged=True)
        return announced if size is None else size

    def _receive(self, response: requests.Response, part: BinaryIO, start: int, expected: int | None) -> None:
        if not self._shared:
            self._bar.total = expected
        self._show(start)
        position, seconds = start, timeout()
        since, received = time.monotonic(), 0
        while data := response.raw.read1(CHUNK):
            if self._stop.is_set():
                raise StoppedError
            position, received = position + len(data), received + len(data)
            if expected is not None and position > expected:
                part.truncate(0)
                raise TransferError(f"the server sends more than the expected {expected:,} bytes", damaged=True)
            _write(part, data)
            self._show(position)
            if (passed := time.monotonic() - since) > seconds:
                if received < SLOWEST * passed:
                    raise TransferError(f"only {received:,} bytes came in {passed:.3g} s", received=position - start)
                since, received = time.monotonic(), 0
        if expected is not None and position < expected:
            what = f"the connection ended after {position:,} of {expected:,} bytes"
            raise TransferError(what, received=position - start)

    def _verify(self, part: BinaryIO) -> None:
        if self._download.digest and (found := mismatch(self._download.part, self._download.digest)):
            part.truncate(0)
            raise TransferError(found, damaged=True)

    def _show(self, position: int) -> None:
        """Move the progress bar to a position of the file."""
        if self._shown is None:
            self._shown = 0
            if not self._bar.disable:
                self._bar.initial += position  # what was there before does not count for the speed
        self._bar.update(position - self._shown)
        self._shown = position


def _write(part: BinaryIO, data: bytes) -> None:
    """Write all of ``data`` to an unbuffered file, of which nothing is lost when the process is killed."""
    view = memoryview(data)
    while view:
        view = view[part.write(view) :]


@contextmanager
def _only_one(download: Download) -> Iterator[BinaryIO | None]:
    """Yield the open ``.part`` of a file, locked against other processes; None if the file is complete.

    An empty ``.part`` is removed at the end. A full disk is reported under the name of the file.
    """
    target, part = download.target, download.part
    target.parent.mkdir(parents=True, exist_ok=True)
    while not target.exists():
        with part.open("ab", buffering=0) as file:
            _lock(file, target)
            if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                continue  # another process has completed or removed it while this one waited
            try:
                yield file
            except Exception as error:
                if cause := files.write_error(error):
                    raise OSError(cause.errno, cause.strerror, str(part)) from error
                raise
            finally:
                if part.exists() and not part.stat().st_size:
                    part.unlink()
            return
    yield None


def _lock(file: BinaryIO, target: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another process downloads %s; waiting for it", target)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        log.debug("%s: the file system has no locks", target)
