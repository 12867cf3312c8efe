"""Ranks: the number, port and device of each, by whichever launcher."""

import pytest

from diffit.training import ranks
from diffit.training.ranks import job_port, join


def as_in_a_job(monkeypatch, **more: str) -> None:
    variables = {
        ranks.LAUNCHER: ranks.SLURM, "SLURM_JOB_ID": "41", "SLURM_PROCID": "0", "SLURM_NTASKS": "1",
        "SLURM_LOCALID": "0", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", **more,
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_process_of_its_own_is_the_only_rank_whatever_a_job_around_it_says(monkeypatch):
    as_in_a_job(monkeypatch, SLURM_PROCID="3", SLURM_NTASKS="8")
    monkeypatch.delenv(ranks.LAUNCHER)
    with join() as rank:
        assert (rank.index, rank.world, rank.is_first_here) == (0, 1, True)


def test_a_rank_of_a_job_is_what_slurm_numbers_it(monkeypatch):
    as_in_a_job(monkeypatch, SLURM_PROCID="11", SLURM_NTASKS="16", SLURM_LOCALID="3", SLURM_RESTART_COUNT="2")
    assert ranks._place() == (11, 16, 3)
    assert ranks.os.environ["MASTER_ADDR"] == "127.0.0.1"
    assert ranks.os.environ["MASTER_PORT"] == str(job_port(41, 2))


def test_jobs_side_by_side_and_their_requeues_meet_at_ports_of_their_own():
    ports = [job_port(job, start) for job in range(99_000, 99_600) for start in range(31)]
    assert len(set(ports)) == len(ports)
    assert min(ports) > 1024 and max(ports) < 32768  # from there on Linux hands ports out by itself


@pytest.mark.parametrize("in_job, visible, local_index, expected", [(False, 8, 3, 3), (True, 8, 3, 3), (True, 1, 3, 0)])
def test_each_rank_has_the_gpu_of_its_number_or_the_only_one_that_slurm_shows_it(
    monkeypatch, in_job, visible, local_index, expected
):
    if in_job:
        as_in_a_job(monkeypatch)
    cuda = ranks.torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: visible)
    monkeypatch.setattr(cuda, "set_device", lambda device: None)
    assert ranks._device(0, local_index).index == expected


def test_a_rank_without_a_gpu_of_its_own_is_refused(monkeypatch):
    monkeypatch.setattr(ranks.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ranks.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ranks.UserError, match="rank 1 has no GPU of its own"):
        ranks._device(1, 1)
