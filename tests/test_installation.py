"""Locks, `make install` on fake and real Pythons, caches below an unwritable HOME, and what is said to visitors."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from helpers.places import REPOSITORY
from helpers.waiting import wait_until
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from diffit.planning.checks.packages import installed_lock, locked

LOCKS = sorted(REPOSITORY.glob("requirements*.lock"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def versions(lock: Path) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in locked(lock).items()}


# ----------------------------------------------------------------------------------------------------------- locks


def test_each_package_is_pinned_once_so_that_all_locks_agree():
    names = []
    for lock in LOCKS:
        for line in lock.read_text().splitlines():
            assert re.fullmatch(r"#.*|-r requirements[a-z-]*\.lock|[\w.-]+==[\w.]+", line), f"{lock.name}: {line}"
            names += [canonicalize_name(line.partition("==")[0])] if "==" in line and line[0] != "#" else []
    assert sorted(names) == sorted(set(names))


def test_locks_of_linux_build_upon_each_other():
    plain, cpu, gpu, macos = (
        versions(REPOSITORY / f"requirements-{name}.lock") for name in ["plain", "cpu", "gpu", "macos"]
    )
    assert plain == macos == versions(REPOSITORY / "requirements.lock")
    assert plain.items() < cpu.items() < gpu.items()
    assert "triton" in gpu and "triton" not in cpu


def test_locks_contain_all_that_the_project_asks_for():
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert len(wanted) > 25
    for lock in LOCKS:
        pinned = versions(lock)
        for requirement in map(Requirement, wanted):
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, f"{lock.name}: {requirement}"


@pytest.mark.skipif(sys.platform != "linux", reason="the packages of NVIDIA are for Linux")
def test_the_lock_for_gpus_contains_all_that_torch_asks_for():
    pinned = versions(REPOSITORY / "requirements-gpu.lock")
    wanted = [Requirement(line) for name in ("torch", "torchvision") for line in metadata.requires(name)]
    wanted = [each for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
    if not any(each.name == "triton" for each in wanted):
        pytest.skip("this torch was built for CPUs")
    for requirement in wanted:
        if requirement.name != "setuptools":  # part of a virtual environment
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_locks_that_were_never_installed_say_so():
    for name in ("macos", "plain"):
        assert "UNTESTED" in (REPOSITORY / f"requirements-{name}.lock").read_text()


def test_other_pythons_find_packages_under_any_spelling_and_report_missing_ones(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tests/helpers")
    other_pythons = importlib.import_module("other_pythons")
    lock = tmp_path / "some.lock"
    lock.write_text("# a comment\ntyping_extensions==4.1\nPyYAML==6.0\n")
    assert other_pythons.pinned(["typing-extensions", "pyyaml"], lock) == ["typing_extensions==4.1", "PyYAML==6.0"]
    with pytest.raises(SystemExit, match=r"some\.lock has no scipy;"):
        other_pythons.pinned(["pyyaml", "scipy"], lock)
    assert len(other_pythons.pinned(other_pythons.PACKAGES)) == len(other_pythons.PACKAGES)


def test_the_lock_of_an_environment_is_read_from_its_stamp(tmp_path):
    (tmp_path / ".installed").write_text("cpu /some folder/.venv\n")
    assert installed_lock(tmp_path / ".installed") == "cpu"
    assert installed_lock(tmp_path / "none") == "gpu"


# ---------------------------------------------------------------------------------------------------- make install

# Stands in for Python: makes an environment of a few files, and records what pip is asked for in the file `asked`.
# pip fails where there is a file `no-room`, and waits for an interrupt where there is a file `slow`.
FAKE_PYTHON = """#!/bin/sh
libraries=.venv/lib/python3.11/site-packages/nvidia/cudnn/lib
case "$*" in
"-m venv"*)
    case "$*" in *--clear*) rm -rf .venv ;; esac
    mkdir -p .venv/bin "$libraries"
    touch "$libraries/libcudnn.so.9" "$libraries/libcudnn_ops.so.9"
    cp "$0" .venv/bin/python ;;
"-m pip"*)
    echo "$*" >> asked
    if [ -e slow ]; then exec sleep 600; fi
    if [ -e no-room ]; then echo "ERROR: [Errno 28] No space left on device"; exit 1; fi ;;
esac
"""


@pytest.fixture
def clone(tmp_path) -> Path:
    """A copy of what `make install` reads, with a fake Python."""
    folder = tmp_path / "a clone"
    (folder / "workflow/envs").mkdir(parents=True)
    for path in [*LOCKS, REPOSITORY / "Makefile", REPOSITORY / "pyproject.toml"]:
        shutil.copy(path, folder)
    shutil.copy(REPOSITORY / "workflow/envs/writable_caches.py", folder / "workflow/envs")
    (folder / "python").write_text(FAKE_PYTHON)
    (folder / "python").chmod(0o755)
    return folder


def environment(**changes: str) -> dict[str, str]:
    """The variables of this process without those of a `make` around it."""
    kept = {key: value for key, value in os.environ.items() if key not in ("LOCK", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return {**kept, **changes}


def make(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess:
    command = ["make", "install", "PYTHON=./python", *words]
    return subprocess.run(command, cwd=folder, env=environment(**changes), capture_output=True, text=True)


def asked(folder: Path) -> list[str]:
    """The locks that pip was asked to install since the last call."""
    found = (
        re.findall(r"requirements-(\w+)\.lock", (folder / "asked").read_text()) if (folder / "asked").exists() else []
    )
    (folder / "asked").unlink(missing_ok=True)
    return found


def test_an_installation_is_made_once_and_again_when_a_lock_is_edited(clone):
    assert make(clone, "LOCK=cpu").returncode == 0
    assert asked(clone) == ["cpu"] and (clone / ".venv/.installed").read_text() == f"cpu {clone / '.venv'}\n"
    assert "Nothing to be done" in make(clone).stdout and asked(clone) == []
    (clone / ".venv/kept").touch()
    os.utime(clone / "requirements.lock", (2**32, 2**32))
    assert make(clone).returncode == 0 and asked(clone) == ["cpu"] and (clone / ".venv/kept").exists()


def test_another_lock_needs_a_new_environment_and_stays_chosen(clone):
    make(clone, "LOCK=cpu")
    libraries = clone / ".venv/lib/python3.11/site-packages/nvidia/cudnn/lib"
    assert [path.name for path in libraries.iterdir()] == ["libcudnn.so.9"]
    assert make(clone, LOCK="gpu").returncode == 0 and asked(clone) == ["cpu", "gpu"]
    assert len(list(libraries.iterdir())) == 2
    assert "Nothing to be done" in make(clone).stdout
    assert (clone / ".venv/.installed").read_text().split()[0] == "gpu"


def test_a_moved_clone_is_installed_again(clone):
    make(clone, "LOCK=cpu")
    asked(clone)
    moved = clone.rename(clone.with_name("moved"))
    (moved / ".venv/stale").touch()
    assert make(moved).returncode == 0 and asked(moved) == ["cpu"] and not (moved / ".venv/stale").exists()
    assert (moved / ".venv/.installed").read_text() == f"cpu {moved / '.venv'}\n"


@pytest.mark.parametrize(
    "tools, lock", [(["sbatch"], "gpu"), (["nvidia-smi"], "gpu"), ([], "cpu"), (["uname"], "macos")]
)
def test_the_machine_decides_which_lock_is_installed(clone, tmp_path, tools, lock):
    if lock == "cpu" and Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a GPU")
    path = tmp_path / "bin"
    path.mkdir()
    for tool in ("sh", "cat", "uname", "rm", "mkdir", "cp", "touch", "make"):
        (path / tool).symlink_to(shutil.which(tool))
    for tool in tools:
        (path / tool).unlink(missing_ok=True)
        (path / tool).write_text("#!/bin/sh\necho Darwin\n")
        (path / tool).chmod(0o755)
    assert make(clone, PATH=str(path)).returncode == 0
    assert asked(clone) == [lock]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["PYTHON=python3.99"], "error: python3.99 is missing"),
        (["PYTHON=./wrong"], "or is not Python 3.11, 3.12 or 3.13; name another one: make PYTHON="),
        (["LOCK=rocm"], "error: there is no requirements-rocm.lock; set LOCK to"),
    ],
)
def test_a_python_or_lock_that_cannot_be_used_ends_in_one_sentence(clone, words, sentence):
    (clone / "wrong").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.version_info = (3, 10)\n'\"$2\""
    )
    (clone / "wrong").chmod(0o755)
    ended = make(clone, *words)
    lines = (ended.stdout + ended.stderr).splitlines()
    assert ended.returncode and len(lines) == 2 and sentence in lines[0], lines  # the second one is make's own
    assert not (clone / ".venv").exists()


def test_a_failed_installation_does_not_count_and_starts_over(clone):
    make(clone, "LOCK=cpu")
    (clone / "no-room").touch()
    ended = make(clone, "LOCK=gpu")
    assert ended.returncode and "error: the installation failed for the reason above" in ended.stdout
    assert not (clone / ".venv/.installed").exists()
    (clone / "no-room").unlink()
    (clone / ".venv/half").touch()
    assert make(clone, "LOCK=gpu").returncode == 0 and not (clone / ".venv/half").exists()


def test_an_interrupted_installation_does_not_count(clone):
    make(clone, "LOCK=cpu")
    asked(clone)
    (clone / "slow").touch()
    os.utime(clone / "pyproject.toml", (2**32, 2**32))
    command = ["make", "install", "PYTHON=./python"]
    running = subprocess.Popen(
        command,
        cwd=clone,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        # Background processes ignore SIGINT, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until((clone / "asked").exists, "pip is called")
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=60) != 0 and not (clone / ".venv/.installed").exists()


def test_caches_move_into_the_environment_if_the_home_is_not_writable(clone):
    make(clone, "LOCK=cpu")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / "real"], check=True)
    (site,) = (clone / "real").glob("lib/python3*/site-packages")
    for name in ("writable_caches.py", "writable_caches.pth"):
        shutil.copy(clone / ".venv/lib/python3.11/site-packages" / name, site)

    def caches(**changes: str) -> str:
        code = "import os; print(os.environ.get('XDG_CACHE_HOME'), os.environ.get('MPLCONFIGDIR'))"
        variables = {key: value for key, value in environment().items() if key != "MPLCONFIGDIR"} | changes
        ended = subprocess.run([clone / "real/bin/python", "-c", code], env=variables, capture_output=True)
        return ended.stdout.decode().strip()

    own = clone / "real/cache"
    assert caches(HOME="/dev/null/home", XDG_CACHE_HOME="") == f"{own} {own / 'matplotlib'}"
    assert caches(XDG_CACHE_HOME="/dev/null/cache", MPLCONFIGDIR="mine") == f"{own} mine"
    writable = clone / "writable"
    assert caches(XDG_CACHE_HOME=str(writable)) == f"{writable} None" and writable.is_dir()


# -------------------------------------------------------------------------------------------------------- visitors


def test_citation_and_changelog_name_the_version_of_the_package():
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    sections = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased" and sections[1] == PROJECT["version"]


def test_contributing_notes_name_the_commands_of_continuous_integration():
    commands = set(
        re.findall(r"^[^#\n]*(make (?:test|lint)[\w-]*)", (REPOSITORY / ".ci/run").read_text(), re.MULTILINE)
    )
    assert commands == {"make lint", "make test", "make test-pythons", "make test-slow", "make test-slurm"}
    notes = (REPOSITORY / "CONTRIBUTING.md").read_text()
    assert not [command for command in commands if not re.search(rf"{command}\b(?!-)", notes)]


def test_the_entry_of_the_workflow_catalogue_is_complete():
    entry = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(entry) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(entry["software-stack-deployment"]) == {"conda", "apptainer", "apptainer+conda"}
    assert "--profile" in entry["mandatory-flags"]["flags"] and entry["mandatory-flags"]["desc"]
