"""The SLURM cluster of these tests, see cluster.py."""

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cluster import Cluster, missing

REQUIRED = (
    "DIFFIT_REQUIRE_SLURM"  # set in continuous integration: without SLURM the tests fail instead of being skipped
)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes with eight A100s each (device files), in the partitions batch, brief and urgent."""
    if reason := missing():
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)
    # SIGTERM must also stop the daemons.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated"))
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "cluster")
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def slurm_commands(cluster, monkeypatch):
    """SLURM's commands in this process use the cluster of these tests."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])
