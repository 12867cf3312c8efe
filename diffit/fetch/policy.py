"""When a download is given up: time-outs, tries and pauses, and the sentence at the end. And mirrors.

Environment variables:

    DIFFIT_TIMEOUT   seconds without an answer or without data after which a try has failed (default: 30)
    DIFFIT_MIRROR    address of a mirror: https://host/path is then read from $DIFFIT_MIRROR/host/path

Files of the Hugging Face hub follow HF_ENDPOINT instead, packages follow pip's own settings. Proxies come from
https_proxy, http_proxy and no_proxy, certificates from REQUESTS_CA_BUNDLE.
"""

import logging
import math
import os
import re
import threading
from collections.abc import Callable
from typing import TypeVar

from diffit.cli import UserError

log = logging.getLogger("diffit")

TIMEOUT_SECONDS = 30.0
TRIES = 6  # in a row without progress
FIRST_PAUSE = 1 / 15  # of the time-out; each further pause is twice as long: 2, 4, 8, 16 and 32 s
PROGRESS_BYTES = 1 << 20  # a try that received as much does not count
BEHIND_A_FIREWALL = "behind a firewall, set https_proxy, or a mirror with DIFFIT_MIRROR or HF_ENDPOINT"

Result = TypeVar("Result")


class TransferError(Exception):
    """A try that failed.

    Args:
        what: what happened.
        final: whether another try would end in the same way.
        status: the HTTP status, if it is the reason.
        damaged: the whole file came and is not the expected one; it is worth one more try, not all of them.
        received: bytes that the try added to the file.
    """

    def __init__(
        self, what: str, final: bool = False, status: int | None = None, damaged: bool = False, received: int = 0
    ):
        super().__init__(what)
        self.final, self.status, self.damaged, self.received = final, status, damaged, received


class StoppedError(Exception):
    """Another download of the same group has failed, so that this one is not needed any more."""


def timeout() -> float:
    """Seconds after which a connection or a read has failed. Raises :class:`UserError` for a bad DIFFIT_TIMEOUT."""
    text = os.environ.get("DIFFIT_TIMEOUT")
    if not text:
        return TIMEOUT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UserError(f"DIFFIT_TIMEOUT: {text!r} is not a positive number of seconds; correct it or unset it")
    return seconds


def mirrored(url: str) -> str:
    """The address under which a file is read: the published one, or that of the mirror in DIFFIT_MIRROR.

    Raises :class:`UserError` for a mirror that is not an http(s) address.
    """
    mirror = os.environ.get("DIFFIT_MIRROR")
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://")):
        raise UserError(f"DIFFIT_MIRROR: {mirror!r} is not an http:// or https:// address; correct it or unset it")
    return f"{mirror.rstrip('/')}/{url.partition('://')[2]}"


def printable(url: str) -> str:
    """An address for messages, without the user name and the password that it may contain."""
    return re.sub(r"//[^/@]*@", "//", url)


def persevere(
    attempt: Callable[[], Result],
    name: str,
    source: str,
    remedy: str,
    denied: str = "",
    stop: threading.Event | None = None,
) -> Result:
    """Call ``attempt`` until it returns, with pauses that double, and at most :data:`TRIES` times without progress.

    Args:
        attempt: one try. It raises :class:`TransferError`.
        name: what is downloaded, for messages.
        source: where it is downloaded from, for messages.
        remedy: the last part of the error message: what to do.
        denied: the remedy if the server answers 401 or 403.
        stop: ends a pause early; then raises :class:`StoppedError`.

    Raises :class:`UserError` when it gives up.
    """
    stop, tries, damaged = stop or threading.Event(), 0, False
    while True:
        try:
            return attempt()
        except TransferError as error:
            tries = 1 if error.received >= PROGRESS_BYTES else tries + 1
            if error.final or tries == TRIES or (error.damaged and damaged):
                raise UserError(_sentence(error, tries, name, source, remedy, denied)) from error
            damaged |= error.damaged
            pause = timeout() * FIRST_PAUSE * 2 ** (tries - 1)
            log.warning("%s: %s; try %d of %d follows in %.3g s", name, error, tries + 1, TRIES, pause)
            if stop.wait(pause):
                raise StoppedError from error


def _sentence(error: TransferError, tries: int, name: str, source: str, remedy: str, denied: str) -> str:
    count = f" in {tries} tries" if tries > 1 else ""
    if error.status in (401, 403) and denied:
        remedy = denied
    elif error.status is None and not error.damaged:
        remedy += f"; {BEHIND_A_FIREWALL}"
    return f"{name} could not be downloaded from {printable(source)}: {error}{count}; {remedy}"
