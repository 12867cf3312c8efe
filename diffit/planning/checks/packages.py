"""Check installed packages against the lock file that `make install` used."""

import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from diffit.planning.checks.result import CheckResult, ok, warning, wrong
from diffit.planning.checks.slurm_site import JobRequest

PROJECT = Path(__file__).resolve().parents[3]
STAMP = Path(sys.prefix) / ".installed"  # written by `make install`: name of the lock, folder of the environment
DEFAULT_LOCK = "gpu"  # of environments that make did not install
PLUGIN, PLUGIN_MINIMUM = "snakemake-executor-plugin-slurm", (2, 8, 0)


def installed_lock(stamp: Path = STAMP) -> str:
    """The name of the lock that was installed: ``gpu`` for requirements-gpu.lock."""
    words = stamp.read_text().split() if stamp.exists() else []
    return words[0] if words else DEFAULT_LOCK


def locked(lock: Path) -> dict[str, str]:
    """Versions by package name, of a lock file and of those that it includes by ``-r``."""
    versions = {}
    for line in lock.read_text().splitlines():
        if line.startswith("-r "):
            versions |= locked(lock.with_name(line.removeprefix("-r ").strip()))
        name, sign, version = line.partition("==")
        if sign and not line.startswith("#"):
            versions[name] = version
    return versions


def check_packages(lock: Path | None = None) -> list[CheckResult]:
    """Compare installed packages with the lock file, and Snakemake's plugin for SLURM with its minimum version."""
    lock = lock or PROJECT / f"requirements-{installed_lock()}.lock"
    remedy = "run make install; if that does not help, remove .venv first"
    found, other = [], []
    for name, version in locked(lock).items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(wrong(f"the package {name} is not installed", remedy))
            continue
        if installed.partition("+")[0] != version:  # builds for CUDA or for CPUs have a suffix
            other.append(f"{name} {installed} (locked: {version})")
        if name == PLUGIN and _version(installed) < PLUGIN_MINIMUM:
            minimum = ".".join(map(str, PLUGIN_MINIMUM))
            found.append(
                wrong(f"{PLUGIN} {installed} starts multi-GPU jobs twice; at least {minimum} is needed", remedy)
            )
    if other:
        found.append(warning(f"package versions differ from {lock.name}: {', '.join(other)}", remedy))
    return found or [ok(f"package versions match {lock.name}")]


def check_gpu_libraries(requests: Iterable[JobRequest], lock: str | None = None) -> list[CheckResult]:
    """Check that an environment whose jobs request GPUs was installed with the libraries of GPUs."""
    lock = lock or installed_lock()
    if lock == DEFAULT_LOCK or not any(request.gpus for request in requests):
        return []
    what = f"jobs request GPUs, but .venv was installed from requirements-{lock}.lock, which cannot use them"
    return [wrong(what, "run make install LOCK=gpu")]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
