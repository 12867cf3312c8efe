"""Run the tests that need no torch with the other supported versions of Python that are installed here.

    python tests/helpers/other_pythons.py

Each version gets a virtual environment ``.venv-3.x`` with a few packages of requirements.lock.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from places import REPOSITORY, other_python

VERSIONS = ("3.11", "3.12", "3.13")
PACKAGES = ("attrs", "iniconfig", "jsonschema", "jsonschema-specifications", "numpy", "packaging", "pillow", "pluggy",
            "pygments", "pytest", "pyyaml", "referencing", "rpds-py", "scipy", "tqdm", "typing-extensions")  # fmt: skip
TESTS = ("tests/test_architecture.py", "tests/config", "tests/store/test_fingerprint.py")


def pinned(names: Iterable[str], lock: Path = REPOSITORY / "requirements.lock") -> list[str]:
    """The lines of a lock file for these packages. Spellings such as ``typing_extensions`` count as the same name."""
    lines = {normalised(line.partition("==")[0]): line for line in lock.read_text().splitlines() if "==" in line}
    if missing := [name for name in names if normalised(name) not in lines]:
        sys.exit(f"error: {lock.name} has no {', '.join(missing)}; correct PACKAGES in {Path(__file__).name}")
    return [lines[normalised(name)] for name in names]


def normalised(name: str) -> str:
    """The name under which an index lists a package (PEP 503)."""
    return re.sub("[-_.]+", "-", name).lower()


def environment(version: str, python: str) -> Path:
    """The interpreter of this version's environment, which is made if it is missing."""
    folder = REPOSITORY / f".venv-{version}"
    inside = folder / "bin/python"
    if not (folder / ".installed").exists():
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, *pinned(PACKAGES)], check=True)
        (folder / ".installed").touch()
    return inside


def main() -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in VERSIONS:
        python = other_python(version)
        if version == own or python is None:
            print(f"Python {version}: {'tested by make test' if version == own else 'not installed here'}", flush=True)
            continue
        print(f"Python {version}:", flush=True)
        command = [str(environment(version, python)), "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
        subprocess.run(command, cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    main()
