"""Training images and random numbers depend only on the seed and the image number."""

import numpy as np
import pytest
import torch
from helpers.batches import assert_same_for_any_cut, read

from diffit import process
from diffit.numerics import rng
from diffit.store import files
from diffit.store.manifest import read_images, read_manifest
from diffit.training import image_loader
from diffit.training.ranks import join
from diffit.training.task import Machine, identity
from diffit.training.trainer import Trainer

EDM = {
    "kind": "edm", "sigma_data": 0.5, "p_mean": -1.2, "p_std": 1.2, "augment": {"probability": 0.2, "xflip": True},
}  # fmt: skip
MIRRORED = {"augment": {"probability": 0.0, "xflip": False}, "xflip": True}


def dataset(digits, seed: int = 0, xflip: bool = False) -> image_loader.TrainingImages:
    return image_loader.TrainingImages(*image_loader.decoded(digits), process.build(EDM).draw, seed, xflip)


def test_decoded_images_are_those_of_the_tars(digits):
    images, labels = image_loader.decoded(digits)
    assert images.shape == (1797, 3, 8, 8) and images.dtype == torch.uint8 and labels.shape == (1797,)
    for index, (_key, image, _label) in enumerate(read_images(digits)):
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), image)


def test_a_damaged_or_stale_cache_is_decoded_again(digits):
    before = image_loader.decoded(digits)[0].clone()
    cache = digits / "decoded.safetensors"
    content = bytearray(cache.read_bytes())
    content[-1] ^= 1
    cache.write_bytes(content)
    assert torch.equal(image_loader.decoded(digits)[0], before)
    assert files.verify(cache)["content_sha256"] == read_manifest(digits)["content_sha256"]


def test_ranks_microbatches_and_workers_change_neither_images_nor_draws(digits):
    steps = range(110, 116)  # they cross into the second epoch at image 1,797
    assert_same_for_any_cut(dataset(digits, xflip=True), steps, 16, [(1, 4, 0), (2, 8, 0), (4, 2, 0), (2, 4, 2)])


def test_half_of_the_images_are_mirrored_with_xflip_in_each_epoch_anew(digits):
    plain, mirrored = dataset(digits), dataset(digits, xflip=True)
    images, _labels = image_loader.decoded(digits)
    changed = []
    for epoch in range(2):
        numbers = list(range(1797 * epoch, 1797 * epoch + 600))
        order = [plain._order[number] for number in numbers]
        seen, as_they_are = mirrored.__getitems__(numbers)["images"], plain.__getitems__(numbers)["images"]
        assert torch.equal(as_they_are, images[order])
        changed.append((seen != as_they_are).flatten(1).any(1))  # few digits are their own mirror images
        assert torch.equal(seen[changed[-1]], as_they_are[changed[-1]].flip(3))
        assert 0.42 < changed[-1].double().mean() < 0.58
    assert not torch.equal(*changed)


@pytest.mark.parametrize(
    ("spec", "xflip"), [(EDM, False), ({**EDM, "xflip": True}, True), ({"kind": "vp", **MIRRORED}, True)]
)
def test_a_training_mirrors_images_if_its_process_says_so(tiny_run, digits, tmp_path, spec, xflip):
    run = identity({**tiny_run, "process": spec}, read_manifest(digits))
    machine = Machine(microbatch=None, workers=0, compile=False, gradient_checkpointing=False, checkpoint_minutes=60)
    with join() as rank:
        trainer = Trainer(rank, run, tmp_path / "state", machine)
        assert trainer._training_set(digits).xflip == xflip


def test_without_xflip_the_random_numbers_are_those_of_the_process_only(digits):
    drawn = dataset(digits).__getitems__([5])
    expected = process.build(EDM).draw(rng.training(0, 5), (3, 8, 8))
    assert all(np.array_equal(drawn[name][0], value) for name, value in expected.items())


def test_every_epoch_visits_each_image_once_in_another_order(digits):
    images = dataset(digits)
    epochs = [[images._order[number] for number in range(epoch * 1797, (epoch + 1) * 1797)] for epoch in range(2)]
    assert all(sorted(epoch) == list(range(1797)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_another_seed_changes_order_and_noise(digits):
    one, other = (read(dataset(digits, seed), image_loader.microbatches(0, 1, 16, 16, 0, 1)) for seed in (0, 1))
    assert not torch.equal(one["images"], other["images"])
    assert not torch.equal(one["noise"], other["noise"])


def test_purposes_do_not_share_their_random_numbers():
    generators = [rng.training(0, 0), rng.sampling(0), rng.dropout(0, 0, 0)]
    assert len({generator.standard_normal() for generator in generators}) == 3
