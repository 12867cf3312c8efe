"""The door for downloads against a server that behaves in every way a server can."""

import hashlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import server as behaviour
from helpers.server import Server
from helpers.waiting import wait_until

from diffit.cli import UserError
from diffit.fetch import Download, fetch, fetch_all, mirrored, policy, reason_unreachable, transfer

CONTENT = bytes(range(256)) * 200
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
PATH = "/some/file.bin"


@pytest.fixture
def server():
    with Server() as running:
        running.file(PATH, CONTENT)
        yield running


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """Short pauses, 0.3 s in all; tests of a server that stalls are :func:`impatient` as well."""
    monkeypatch.setenv("DIFFIT_TIMEOUT", "20")
    monkeypatch.setattr(policy, "FIRST_PAUSE", 0.0005)
    for name in ("DIFFIT_MIRROR", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("DIFFIT_TIMEOUT", "0.5")


def described(server: Server, folder, **changes) -> Download:
    return Download(**{
        "url": server.address + PATH, "target": folder / "file.bin", "remedy": "put it there by hand",
        "size": len(CONTENT), "digest": SHA256, **changes,
    })  # fmt: skip


def refused(download: Download) -> str:
    with pytest.raises(UserError) as error:
        fetch(download)
    assert not download.target.exists()
    return str(error.value)


@pytest.mark.parametrize("digest", [SHA256, f"md5:{hashlib.md5(CONTENT).hexdigest()}",
                                    f"sha1:{hashlib.sha1(CONTENT).hexdigest()}", None])  # fmt: skip
def test_the_right_bytes_appear_at_once_and_nothing_else(server, tmp_path, digest):
    assert fetch(described(server, tmp_path, digest=digest)).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
    fetch(described(server, tmp_path, digest=digest))
    assert server.asked(PATH) == [None]


def test_a_connection_that_breaks_is_resumed_where_it_broke(server, tmp_path):
    server.behave(PATH, behaviour.stops, behaviour.stops, behaviour.healthy)
    assert fetch(described(server, tmp_path)).read_bytes() == CONTENT
    half, most = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    assert server.asked(PATH) == [None, f"bytes={half}-", f"bytes={most}-"]


def test_a_server_that_stalls_is_left_and_resumed(server, tmp_path, impatient):
    server.behave(PATH, behaviour.stalls, behaviour.healthy)
    assert fetch(described(server, tmp_path)).read_bytes() == CONTENT
    assert server.asked(PATH) == [None, f"bytes={len(CONTENT) // 2}-"]


def test_the_next_run_resumes_from_the_unfinished_file(server, tmp_path):
    server.behave(PATH, behaviour.stops, behaviour.status(500))
    assert "the server answers 500 Internal Server Error in 6 tries; put it there by hand" in refused(
        described(server, tmp_path)
    )
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[: len(CONTENT) // 2]
    server.behave(PATH, behaviour.healthy)
    assert fetch(described(server, tmp_path)).read_bytes() == CONTENT
    assert server.asked(PATH)[-1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize("known", [True, False])
def test_an_unfinished_file_that_is_whole_is_only_checked(server, tmp_path, known):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetch(described(server, tmp_path, size=len(CONTENT) if known else None)).read_bytes() == CONTENT
    assert server.asked(PATH) == ([] if known else [f"bytes={len(CONTENT)}-"])


def test_an_unfinished_file_that_is_damaged_or_too_long_is_not_resumed(server, tmp_path):
    for content in (b"x" * 1000, b"x" * (len(CONTENT) + 1)):
        (tmp_path / "file.bin.part").write_bytes(content)
        assert fetch(described(server, tmp_path)).read_bytes() == CONTENT
        (tmp_path / "file.bin").unlink()


def test_an_unfinished_file_that_is_too_long_is_seen_without_a_hash(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * (len(CONTENT) + 1))
    assert fetch(described(server, tmp_path, digest=None)).read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_not_glued_to_its_old_half(server, tmp_path):
    def changes(answer, content):
        behaviour.stops(answer, content)
        server.contents[PATH] = CONTENT[::-1]

    server.behave(PATH, changes, behaviour.healthy)
    assert fetch(described(server, tmp_path, digest=None)).read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.behave(PATH, behaviour.stops, behaviour.without_ranges)
    assert fetch(described(server, tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize("way", ["without_length", "in_chunks"])
@pytest.mark.parametrize("known", [True, False])
def test_a_length_that_the_server_does_not_say_is_not_needed(server, tmp_path, way, known):
    server.behave(PATH, getattr(behaviour, way))
    assert fetch(described(server, tmp_path, size=len(CONTENT) if known else None)).read_bytes() == CONTENT


def test_a_file_that_ends_early_without_a_length_is_not_taken_for_whole(server, tmp_path):
    server.behave(PATH, behaviour.stops_unnoticed, behaviour.healthy)
    assert fetch(described(server, tmp_path, digest=None)).read_bytes() == CONTENT


def test_the_bytes_are_those_of_the_file_and_not_a_compressed_form(server, tmp_path):
    server.behave(PATH, behaviour.compressed)
    assert fetch(described(server, tmp_path, size=None, digest=None)).read_bytes() == CONTENT


def test_redirects_are_followed_and_the_token_stays_with_its_server(server, tmp_path):
    with Server() as elsewhere:
        there = elsewhere.file("/there", CONTENT)
        server.behave(PATH, behaviour.redirects(there))
        fetch(
            described(server, tmp_path, auth=lambda request: request.headers.update(Authorization="secret") or request)
        )
        assert [asked[3] for asked in server.requests] == ["secret"]
        assert [asked[3] for asked in elsewhere.requests] == [None]


@pytest.mark.parametrize("number", [401, 403, 404, 410])
def test_refusals_are_not_repeated(server, tmp_path, number):
    server.behave(PATH, behaviour.status(number))
    said = refused(described(server, tmp_path, denied="set HF_TOKEN"))
    assert said.startswith(f"file.bin could not be downloaded from {server.address}{PATH}: the server answers {number}")
    assert said.endswith("set HF_TOKEN" if number in (401, 403) else "put it there by hand")
    assert server.asked(PATH) == [None] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "way, sentence",
    [
        (behaviour.status(500), "the server answers 500 Internal Server Error in 6 tries; put it there by hand"),
        (behaviour.status(503), "the server answers 503 Service Unavailable in 6 tries; put it there by hand"),
        (behaviour.status(429), "the server answers 429 Too Many Requests in 6 tries; put it there by hand"),
        (behaviour.closes, "in 6 tries; put it there by hand; behind a firewall, set https_proxy"),
    ],
)
def test_errors_that_may_pass_are_tried_six_times(server, tmp_path, way, sentence):
    server.behave(PATH, way)
    assert sentence in refused(described(server, tmp_path))
    assert server.asked(PATH) == [None] * policy.TRIES and not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", [behaviour.silent, behaviour.stalls, behaviour.trickles])
def test_a_server_that_sends_nothing_or_next_to_nothing_is_given_up(server, tmp_path, impatient, monkeypatch, way):
    monkeypatch.setattr(policy, "TRIES", 2)
    server.behave(PATH, way)
    said = refused(described(server, tmp_path))
    assert re.search(r"(no answer or no data for 0\.5 s|only \d+ bytes came in .* s) in 2 tries; put it there", said)


def test_a_host_that_does_not_answer_is_one_sentence(tmp_path):
    said = refused(Download("http://127.0.0.1:9/x", tmp_path / "x", "put it there by hand"))
    assert said == (
        "x could not be downloaded from http://127.0.0.1:9/x: Connection refused in 6 tries; put it there by hand; "
        "behind a firewall, set https_proxy, or a mirror with DIFFIT_MIRROR or HF_ENDPOINT"
    )


def test_a_password_in_an_address_is_not_printed(server, tmp_path, caplog):
    address = server.address.replace("http://", "http://me:secret@")
    with caplog.at_level(logging.INFO), pytest.raises(UserError) as error:
        fetch(Download(f"{address}/none", tmp_path / "x", "put it there by hand"))
    assert f"from {server.address}/none: the server answers 404" in str(error.value)
    assert "secret" not in str(error.value) + caplog.text and server.requests[0][3].startswith("Basic ")


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/x", "http://"])
def test_an_address_that_cannot_work_is_not_tried_again(tmp_path, url):
    assert " tries" not in refused(Download(url, tmp_path / "x", "put it there by hand"))


def test_wrong_bytes_of_the_right_size_are_fetched_once_more_and_then_refused(server, tmp_path):
    server.behave(PATH, behaviour.wrong, behaviour.healthy)
    assert fetch(described(server, tmp_path)).read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    server.requests.clear()
    server.behave(PATH, behaviour.wrong)
    assert re.search(r"its sha256 is [0-9a-f]{64} instead of .* put it there", refused(described(server, tmp_path)))
    assert server.asked(PATH) == [None, None] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [10, len(CONTENT) + 10])
def test_another_size_than_the_known_one_is_refused_before_the_bytes_come(server, tmp_path, size):
    said = refused(described(server, tmp_path, size=size))
    assert f"the server offers {len(CONTENT):,} bytes instead of {size:,}" in said and not list(tmp_path.iterdir())


def test_too_many_bytes_are_refused_as_they_come(server, tmp_path):
    server.behave(PATH, behaviour.long)
    assert f"more than the expected {len(CONTENT):,} bytes" in refused(described(server, tmp_path, digest=None))
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_put_there_is_taken_if_it_is_the_right_one(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(UserError, match=r"file\.bin: its sha256 is .*; delete it"):
        fetch(described(server, tmp_path))
    target.write_bytes(b"x")
    with pytest.raises(UserError, match=r"has 1 bytes instead of 51,200; delete it"):
        fetch(described(server, tmp_path, trusted=True))
    target.write_bytes(CONTENT)
    assert fetch(described(server, tmp_path)) == target and server.requests == []


def test_progress_counts_bytes_with_and_without_a_length(server, tmp_path, monkeypatch):
    shown = []

    def progress(**options):
        from tqdm import tqdm

        shown.append(tqdm(**options, file=io.StringIO()))
        return shown[-1]

    monkeypatch.setattr(transfer, "progress", progress)
    server.behave(PATH, behaviour.stops, behaviour.healthy)
    fetch(described(server, tmp_path / "a", size=None))
    server.behave(PATH, behaviour.without_length)
    fetch(described(server, tmp_path / "b", size=None))
    assert [(bar.n, bar.total, bar.unit) for bar in shown] == [(51200, 51200, "B"), (51200, None, "B")]


def test_several_files_share_a_bar_and_the_first_error_ends_all(server, tmp_path):
    paths = [f"/many/{i}" for i in range(6)]
    downloads = [Download(server.file(path, CONTENT), tmp_path / path[1:], "", len(CONTENT), SHA256) for path in paths]
    fetch_all(downloads, "many", workers=3)
    assert all(download.target.read_bytes() == CONTENT for download in downloads)
    server.behave("/many/3", behaviour.status(404))
    others = [Download(one.url, tmp_path / "again" / one.target.name, "go on", one.size) for one in downloads]
    with pytest.raises(UserError, match=r"3 could not be downloaded from .* 404 Not Found; go on"):
        fetch_all(others, "many", workers=3)


def test_the_first_error_also_ends_downloads_that_have_begun(server, tmp_path):
    server.behave("/slow", behaviour.slowly)
    slow = Download(server.file("/slow", CONTENT * 20), tmp_path / "slow", "")
    with pytest.raises(UserError, match=r"none could not be downloaded"):
        fetch_all([slow, Download(f"{server.address}/none", tmp_path / "none", "")], "both", workers=2)
    assert not slow.target.exists()


COMMAND = """
import signal, sys; from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes may start with it ignored
from diffit.cli import run_command
from diffit.fetch import Download, fetch
run_command(lambda: fetch(Download(sys.argv[1], Path(sys.argv[2]), "put it there by hand")))
"""


def start(url: str, target, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-c", COMMAND, url, str(target)]
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_download_at_once_and_keeps_what_came(server, tmp_path, number):
    server.behave(PATH, behaviour.stalls, behaviour.healthy)
    part = tmp_path / "file.bin.part"
    process = start(server.address + PATH, tmp_path / "file.bin", DIFFIT_TIMEOUT="600")
    wait_until(lambda: part.exists() and part.stat().st_size == len(CONTENT) // 2, "half of the file came")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGTERM) and "Traceback" not in said
    assert part.read_bytes() == CONTENT[: len(CONTENT) // 2]
    assert start(server.address + PATH, tmp_path / "file.bin").wait(60) == 0
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and server.asked(PATH)[-1] == f"bytes={len(CONTENT) // 2}-"


def test_the_command_ends_with_one_sentence(server, tmp_path):
    server.behave(PATH, behaviour.status(404))
    process = start(server.address + PATH, tmp_path / "file.bin")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: file.bin could not be downloaded from http://127.0.0.1")


def test_two_processes_download_a_file_once(server, tmp_path):
    def slow(answer, content):
        time.sleep(1)
        behaviour.healthy(answer, content)

    server.behave(PATH, slow)
    processes = [start(server.address + PATH, tmp_path / "file.bin", DIFFIT_TIMEOUT="60") for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and len(server.asked(PATH)) == 1


def test_a_full_disk_is_reported_as_that_and_not_as_the_network(server, small_disk):
    disk = small_disk("32k")
    with pytest.raises(OSError) as error:
        fetch(described(server, disk))
    assert error.value.errno == 28 and error.value.filename == str(disk / "file.bin.part")
    assert len(server.asked(PATH)) == 1


def test_a_mirror_is_asked_under_the_name_of_the_host(server, tmp_path, monkeypatch):
    url = server.file("/copy/data.example/folder/x.npz", CONTENT)
    monkeypatch.setenv("DIFFIT_MIRROR", f"{server.address}/copy/")
    assert mirrored("https://data.example/folder/x.npz") == url
    monkeypatch.setenv("DIFFIT_MIRROR", "data.example")
    with pytest.raises(UserError, match=r"DIFFIT_MIRROR: 'data\.example' is not an http"):
        mirrored("https://data.example/x")


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("DIFFIT_TIMEOUT", value)
    with pytest.raises(UserError, match=r"DIFFIT_TIMEOUT: .* is not a positive number of seconds"):
        policy.timeout()


def test_tries_pause_longer_and_longer_and_progress_makes_them_start_again(monkeypatch, caplog):
    monkeypatch.delenv("DIFFIT_TIMEOUT")
    monkeypatch.setattr(policy, "FIRST_PAUSE", 1 / 15)
    pauses, received = [], iter([0, 0, 0, policy.PROGRESS_BYTES, 0, 0, 0, 0, 0])

    class Stop:
        def wait(self, seconds: float) -> None:
            pauses.append(seconds)

    def attempt():
        raise policy.TransferError("it failed", received=next(received))

    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="it failed in 6 tries"):
        policy.persevere(attempt, "x", "there", "wait", stop=Stop())
    assert pauses == [2, 4, 8, 2, 4, 8, 16, 32]


def test_whether_a_file_can_be_reached_is_known_without_downloading_it(server):
    assert reason_unreachable(server.address + PATH) is None
    assert reason_unreachable(server.address + "/none") == "the server answers 404 Not Found"
    assert reason_unreachable("http://127.0.0.1:9/x") == "Connection refused"
    assert {method for method, *_ in server.requests} == {"HEAD"}
