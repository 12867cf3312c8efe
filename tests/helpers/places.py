"""Where things are, and the GPUs that only tests/test_gpu.py may see."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"

# What the tests prove to the bit holds on CPUs; tests/test_gpu.py has its own processes, which see the GPUs.
GPUS = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
os.environ["CUDA_VISIBLE_DEVICES"] = ""
