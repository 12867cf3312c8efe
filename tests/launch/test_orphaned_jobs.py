"""Whether Snakemake asks SLURM for jobs of its predecessors; tests/slurm/test_workflow.py cancels them."""

import pytest

from diffit.launch import orphaned_jobs
from diffit.slurm.commands import SlurmError


@pytest.mark.parametrize(
    ("submitted", "submits", "asks"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_slurm_is_asked_only_where_jobs_may_have_been_submitted(
    submitted, submits, asks, tmp_path, monkeypatch, caplog
):
    def no_answer(*_command):
        raise SlurmError("no controller")

    monkeypatch.setattr(orphaned_jobs.shutil, "which", lambda _name: "/usr/bin/squeue")
    monkeypatch.setattr(orphaned_jobs, "ask", no_answer)
    if submitted:
        (tmp_path / ".snakemake/slurm_logs").mkdir(parents=True)
    assert orphaned_jobs.cancel(tmp_path, submits) == []
    assert [message.startswith("warning: cannot tell") for message in caplog.messages] == [True] * asks
