"""Batches of the training loader."""

import torch

from diffit.training import image_loader


def read(images, batches, workers: int = 0) -> dict[str, torch.Tensor]:
    parts = list(image_loader.load(images, batches, workers, pin=False))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def assert_same_for_any_cut(images, steps: range, batch: int, cuts: list[tuple[int, int, int]]) -> None:
    """Each (ranks, microbatch, workers) of ``cuts`` gives the images and draws of one rank with whole batches."""
    start, stop = steps.start, steps.stop
    expected = read(images, image_loader.microbatches(start, stop, batch, batch, 0, 1))
    for world, microbatch, workers in cuts:

        def parts(rank: int, world: int = world, microbatch: int = microbatch):
            return image_loader.microbatches(start, stop, batch, microbatch, rank, world)

        ranks = [read(images, parts(rank), workers) for rank in range(world)]
        numbers = [number for rank in range(world) for part in parts(rank) for number in part]
        assert sorted(numbers) == list(range(start * batch, stop * batch))
        order = torch.tensor(numbers).argsort()
        for name, value in expected.items():
            assert torch.equal(torch.cat([rank[name] for rank in ranks])[order], value), name
