import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture(scope="session")
def cluster():
    os.environ["SLURM_CONF"] = "/tmp/sitecl/slurm.conf"
