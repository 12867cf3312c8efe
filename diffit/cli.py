"""What every command of this package shares: its arguments, its way to fail, its log and its progress bar."""

import argparse
import difflib
import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger("diffit")

WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG)


class UserError(ValueError):
    """Something the user can put right. The message is one sentence that names the thing and the way out."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose commands also write what they say, and why they failed, to ``--log FILE``."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--log", type=Path, metavar="FILE", help="also write messages and errors to FILE")

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        arguments = super().parse_args(args, namespace)
        if arguments.log:
            arguments.log.parent.mkdir(parents=True, exist_ok=True)
            # The ranks of a training join the log that their launcher began.
            log.addHandler(logging.FileHandler(arguments.log, mode="a" if "DIFFIT_LAUNCHER" in os.environ else "w"))
        return arguments


def run(main: Callable[[], None]) -> None:
    """Run a command: a :class:`UserError` or a full disk becomes one line on stderr and exit status 1."""
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
            log.exception("this is a fault of the program, please report it")
            sys.exit(1)
        log.error("error: cannot write %s: %s; nothing was replaced", error.filename or "a file", error.strerror)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        log.exception("this is a fault of the program, please report it")
        sys.exit(1)


def nearest(name: str, names) -> str:
    """The name that was probably meant, or all that there are."""
    guess = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {guess[0]!r}?" if guess else f"there are: {', '.join(sorted(names)) or 'none'}"


def json_argument(text: str) -> dict:
    """Parse the JSON object with which a rule describes a data set, a run or a sampler."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return value


def natural(text: str) -> int:
    """Parse a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number from 1 on."""
    if natural(text) == 0:
        raise argparse.ArgumentTypeError("0 is not a whole number from 1 on")
    return int(text)


def progress(items: Iterable | None = None, **options) -> tqdm:
    """A tqdm bar with its ETA that stays silent when stderr is not a terminal."""
    return tqdm(items, disable=None, dynamic_ncols=True, **options)
