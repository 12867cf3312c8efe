"""A real SLURM for the tests of this folder; see cluster.py."""

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cluster import Cluster, missing

REQUIRED = "DIFFIT_REQUIRE_SLURM"  # set where a skipped test would hide something, as in continuous integration


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes, each with device files for four A100s, in partitions batch, brief and urgent."""
    if reason := missing():
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)
    # A run of the tests that is told to end takes its daemons with it.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("told to end"))
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "cluster")
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
