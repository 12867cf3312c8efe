"""Where things are, and the GPUs that only tests/test_gpu.py may see."""

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"

# What the tests prove to the bit holds on CPUs; tests/test_gpu.py has its own processes, which see the GPUs.
GPUS = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def other_python(version: str) -> str | None:
    """An interpreter of this version, ``3.12``; None where there is none."""
    installed = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}*/bin/python"))
    for python in filter(None, [shutil.which(f"python{version}"), *map(str, installed)]):
        said = subprocess.run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True)
        if said.stdout.decode().strip() == version:
            return python
    return None
