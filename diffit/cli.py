"""Command-line basics that all commands share: arguments, error handling, logging and progress bars."""

import argparse
import contextlib
import difflib
import errno
import functools
import inspect
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger("diffit")

LINE_SECONDS = 30  # between two lines of progress
LISTED = 15  # names in an error message
LARGEST = 2**53  # of a number on the command line or in a configuration: all file formats here keep integers up to it

WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG)

Arguments, Result = ParamSpec("Arguments"), TypeVar("Result")


class UserError(ValueError):
    """An error that the user can fix. The message is one sentence: what is wrong, where, and what to do."""


class Parser(argparse.ArgumentParser):
    """An argument parser with the option ``--log FILE``, which copies messages and errors of a command to a file."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--log", type=Path, metavar="FILE", help="also write messages and errors to FILE")

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        """Parse the arguments and open the log file."""
        arguments = super().parse_args(args, namespace)
        if arguments.log:
            arguments.log.parent.mkdir(parents=True, exist_ok=True)
            # The ranks of a training append to the log that their launcher started.
            log.addHandler(logging.FileHandler(arguments.log, mode="a" if "DIFFIT_LAUNCHER" in os.environ else "w"))
        return arguments


def run_command(main: Callable[[], None]) -> None:
    """Call a command's main function; report a :class:`UserError` or a full disk as one line and exit with status 1."""
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler())
    try:
        with logging_redirect_tqdm([log]):
            main()
    except UserError as error:
        log.error("error: %s", error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in WRITE_ERRORS:
            log.exception("error: this is a bug in diffit, please report it")
            sys.exit(1)
        log.error("error: cannot write %s: %s; no file was replaced", error.filename or "a file", error.strerror)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        log.exception("error: this is a bug in diffit, please report it")
        sys.exit(1)


def exit_on_user_error(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Wrap a function that Snakemake calls: print a :class:`UserError` as one line instead of a traceback and exit."""

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            sys.exit(f"error: {error}")

    wrapper.__signature__ = inspect.signature(function)  # Snakemake asks for it once per job and keyword
    return wrapper


def suggestion(name: str, names: Iterable[str]) -> str:
    """The last part of an error message about an unknown name: the most similar known name, or all known names."""
    names = list(names)
    similar = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if similar:
        return f"did you mean {similar[0]!r}?"
    listed = sorted(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return f"available: {', '.join(listed[:LISTED]) or 'none'}{more}"


def json_argument(text: str) -> dict:
    """Parse a JSON object, in which a rule describes a data set, a run or a sampler (argparse type)."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return value


def non_negative_int(text: str) -> int:
    """Parse an integer >= 0 (argparse type)."""
    if not _is_integer(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative integer below 2^53")
    return int(text)


def positive_int(text: str) -> int:
    """Parse an integer >= 1 (argparse type)."""
    if not _is_integer(text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer below 2^53")
    return int(text)


def non_negative_number(text: str) -> float:
    """Parse a finite number >= 0 (argparse type)."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number from 0 on")
    return value


def positive_number(text: str) -> float:
    """Parse a finite number > 0 (argparse type)."""
    with contextlib.suppress(argparse.ArgumentTypeError):
        if value := non_negative_number(text):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")


def _is_integer(text: str) -> bool:
    return text.isdecimal() and len(text) < 20 and int(text) < LARGEST


def print_result(text: str) -> None:
    """Print the result of a command on stdout. It is not an error if the reader has gone, as in ``… | head``."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is left in the buffer would raise again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ProgressLines(tqdm):
    """Progress where stderr is not a terminal: a line of the log every ``LINE_SECONDS``, none for shorter work.

    For tqdm it is a disabled bar, because messages of the log make tqdm draw all other bars again.
    """

    def __init__(self, items: Iterable | None = None, **options):
        super().__init__(items, **{**options, "disable": True})
        self._form = {name: options[name] for name in ("unit", "unit_scale", "initial") if name in options}
        self._title = options.get("desc", "progress")
        self._began = self._printed = time.monotonic()

    def __iter__(self) -> Iterator:
        for item in self.iterable:
            yield item
            self.update()

    def update(self, n: float = 1) -> None:
        self.n += n
        now = time.monotonic()
        if now - self._printed >= LINE_SECONDS:
            self._printed = now
            line = "{n_fmt} of {total_fmt} {unit}, {rate_noinv_fmt}, {remaining} left"
            log.info(
                "%s: %s",
                self._title,
                tqdm.format_meter(self.n, self.total, now - self._began, bar_format=line, **self._form),
            )


def progress(items: Iterable | None = None, lines: bool = True, **options) -> tqdm:
    """A tqdm bar. Where stderr is not a terminal: lines of the log, or nothing if ``lines`` is False."""
    if lines and not sys.stderr.isatty():
        return ProgressLines(items, **options)
    return tqdm(items, disable=None, dynamic_ncols=True, **options)
