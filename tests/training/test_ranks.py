"""Ranks: their place and their device."""

import pytest
from helpers.precision import tf32_products

from diffit.training import ranks
from diffit.training.ranks import Place, join


def test_a_single_process_ignores_the_variables_of_a_job_and_of_other_launchers(monkeypatch):
    for name in ("SLURM_PROCID", "SLURM_NTASKS", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "3")
    with join() as rank:
        assert (rank.index, rank.world, rank.is_first_here) == (0, 1, True)


def test_ranks_compute_in_exact_float32(monkeypatch):
    monkeypatch.setattr(ranks.torch.backends.cudnn, "allow_tf32", True)
    with join():
        assert tf32_products() == (False, False)


@pytest.mark.parametrize(
    "may_hide_gpus, visible, local_index, expected", [(False, 8, 3, 3), (True, 8, 3, 3), (True, 1, 3, 0)]
)
def test_each_rank_uses_the_gpu_of_its_number_or_the_only_one_that_a_scheduler_shows(
    monkeypatch, may_hide_gpus, visible, local_index, expected
):
    cuda = ranks.torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: visible)
    monkeypatch.setattr(cuda, "set_device", lambda device: None)
    assert ranks._device(Place(local_index=local_index, may_hide_gpus=may_hide_gpus)).index == expected


def test_a_rank_without_a_gpu_of_its_own_is_refused(monkeypatch):
    monkeypatch.setattr(ranks.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ranks.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ranks.UserError, match="rank 1 has no GPU of its own"):
        ranks._device(Place(index=1, world=2, local_index=1))
