"""What commands print: progress, and results that nobody reads to their end."""

import io
import logging
import os
import re
import subprocess
import sys

import pytest
from helpers.places import REPOSITORY
from tqdm import tqdm

from diffit import cli


def test_long_work_without_a_terminal_reports_its_progress_and_the_time_left():
    code = (
        "import time\nfrom diffit import cli\ncli.LINE_SECONDS = 0.2\n"
        "def main():\n    with cli.progress(desc='measure', unit='img', total=4) as bar:\n"
        "        for _ in range(2):\n            time.sleep(0.3)\n            bar.update()\n"
        "    list(time.sleep(0.3) for _ in cli.progress(range(1), desc='shard', unit='img'))\n"
        "cli.run_command(main)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert ended.stdout == "" and ended.returncode == 0
    first, second, third = ended.stderr.splitlines()
    assert re.fullmatch(r"measure: 1 of 4 img, +[\d.]+img/s, \d\d:\d\d left", first)
    assert second.startswith("measure: 2 of 4 img") and third.startswith("shard: 1 of 1 img")


def test_short_work_without_a_terminal_prints_nothing(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, "diffit")
    assert list(cli.progress(range(1000), desc="shard")) == list(range(1000))
    assert not caplog.messages and sys.stderr.getvalue().strip() == ""


def test_a_terminal_shows_a_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = cli.progress(range(3), desc="shard", file=terminal)
    assert type(bar) is tqdm and not bar.disable
    list(bar)
    assert "3/3" in terminal.getvalue()


@pytest.mark.parametrize("status", [0, 3])
def test_a_reader_that_has_gone_is_no_error_and_hides_no_exit_status(status):
    code = f"import sys\nfrom diffit.cli import print_result\nprint_result('line\\n' * 100_000)\nsys.exit({status})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == status
