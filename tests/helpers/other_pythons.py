"""Run the tests that need no torch with the other supported versions of Python that are installed here.

    python tests/helpers/other_pythons.py

Each version gets a virtual environment ``.venv-3.x`` with a few packages of requirements.lock.
"""

import subprocess
import sys
from pathlib import Path

from places import REPOSITORY, other_python

VERSIONS = ("3.11", "3.12", "3.13")
PACKAGES = ("attrs", "iniconfig", "jsonschema", "jsonschema-specifications", "numpy", "packaging", "pillow", "pluggy",
            "pygments", "pytest", "pyyaml", "referencing", "rpds-py", "scipy", "tqdm", "typing_extensions")  # fmt: skip
TESTS = ("tests/test_architecture.py", "tests/config", "tests/store/test_fingerprint.py")


def environment(version: str, python: str) -> Path:
    """The interpreter of this version's environment, which is made if it is missing."""
    folder = REPOSITORY / f".venv-{version}"
    inside = folder / "bin/python"
    if not (folder / ".installed").exists():
        pinned = (REPOSITORY / "requirements.lock").read_text().splitlines()
        wanted = [line for line in pinned if line.partition("==")[0].lower() in PACKAGES]
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, *wanted], check=True)
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
