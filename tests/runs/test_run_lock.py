"""The lock of a run: it has one holder and a heartbeat, is taken over once, and its loss is noticed."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from diffit.cli import UserError
from diffit.runs import run_lock as module
from diffit.runs.run_lock import check, lock

ELSEWHERE = {"host": "elsewhere", "pid": 1, "started": "0", "job": None, "start": 0}
TAKE = """
import sys, time
from pathlib import Path
from diffit.runs.run_lock import lock
path, seconds = Path(sys.argv[1]), float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
with lock(path):
    with open(path.with_name("story"), "a") as story:
        story.write("in\\n"); story.flush()
        time.sleep(seconds)
        story.write("out\\n")
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "lock"


def leave(path, holder: dict, age: float = 0) -> None:
    """Write the lock of a holder with a heartbeat ``age`` seconds ago."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(holder))
    then = time.time() - age
    os.utime(path, (then, then))


def taken(path, **options) -> bool:
    """Return whether the lock is acquired within a second."""
    deadline = time.monotonic() + 1
    with lock(path, give_up=lambda: time.monotonic() > deadline, **options) as held:
        return held


def test_it_is_held_and_released(path):
    with lock(path) as held:
        assert held and path.exists()
        check(path)
    assert not path.exists()


def test_the_lock_of_another_host_is_respected_while_it_has_a_heartbeat(path):
    leave(path, ELSEWHERE, age=module.STALE_SECONDS - 60)
    assert not taken(path)
    assert json.loads(path.read_text()) == ELSEWHERE


def test_the_lock_of_another_host_is_taken_over_after_its_heartbeat_has_stopped(path):
    leave(path, ELSEWHERE, age=module.STALE_SECONDS + 60)
    assert taken(path)


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    leave(path, {**ELSEWHERE, "host": socket.gethostname(), "pid": ended.pid})
    assert taken(path)


def test_a_reused_process_number_is_not_mistaken_for_the_holder(path):
    leave(path, {**ELSEWHERE, "host": socket.gethostname(), "pid": os.getpid(), "started": "1"})
    assert taken(path)


def test_a_requeued_job_takes_over_from_its_earlier_start_on_another_host(path, monkeypatch):
    leave(path, {**ELSEWHERE, "job": "7", "start": 0})
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert not taken(path)  # another process of this very start
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert taken(path)


def test_the_lock_of_a_job_that_slurm_says_has_ended_is_taken_over(path):
    leave(path, {**ELSEWHERE, "job": "7"})
    assert not taken(path, ended_job="8")
    assert taken(path, ended_job="7")


def test_the_heartbeat_is_independent_of_the_holders_steps(path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    with lock(path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert time.time() - path.stat().st_mtime < 60


def test_a_wrong_clock_does_not_make_a_lock_stale(path, monkeypatch):
    leave(path, ELSEWHERE)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert not taken(path)


def test_a_lost_lock_ends_the_holder_with_one_line_and_keeps_the_new_lock(path):
    with lock(path):
        leave(path, ELSEWHERE)
        with pytest.raises(UserError, match=r"lost the lock .* \(process 1 on elsewhere holds it\)"):
            check(path)
    assert json.loads(path.read_text()) == ELSEWHERE
    path.unlink()
    with pytest.raises(UserError, match="it was deleted"):
        check(path)


def test_a_lock_that_another_process_has_taken_over_is_put_back(path):
    leave(path, ELSEWHERE)
    assert not module._remove(path, {**ELSEWHERE, "host": "another"})
    assert json.loads(path.read_text()) == ELSEWHERE
    assert [entry.name for entry in path.parent.iterdir()] == ["lock"]


def test_many_processes_that_find_a_stale_lock_hold_it_one_after_another(path):
    leave(path, ELSEWHERE, age=module.STALE_SECONDS + 60)
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, str(path), "0.05"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    for taker in takers:
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        taker.stdin.write("go\n")
        taker.stdin.flush()
    for taker in takers:
        assert taker.wait(60) == 0
    assert path.with_name("story").read_text() == "in\nout\n" * 6
    assert not path.exists()


def test_only_one_of_many_removes_a_stale_lock(path):
    for _ in range(200):
        leave(path, ELSEWHERE)
        start, did = threading.Barrier(4), []

        def take(start=start, did=did):
            start.wait()
            did.append(module._remove(path, ELSEWHERE))

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(did) == [False, False, False, True]
