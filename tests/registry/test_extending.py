"""A network and a sampler that are added only through the registries work in the config, training and sampling."""

import signal

import pytest
import torch
import yaml
from helpers.extensions import EULER_SAMPLER, PLAIN_NETWORK, EulerSampler, PlainNet
from helpers.places import REPOSITORY

from diffit import nets, process
from diffit.cli import UserError
from diffit.config.schema import config_schema
from diffit.config.validation import validate
from diffit.nets import NETWORKS
from diffit.nets.inspect import size
from diffit.process import samplers
from diffit.process.samplers import SAMPLERS
from diffit.runs.run_lock import lock
from diffit.sample import sample
from diffit.store.manifest import gather, read_images, read_manifest
from diffit.training.ranks import STOP_SIGNALS, Rank
from diffit.training.task import Machine, identity, milestone_folder
from diffit.training.trainer import Trainer

CONFIG = """
datasets:
  digits: {source: digits, resolution: 8, shards: 2}
samplers:
  short: {kind: euler, steps: 3, images: 2, shards: 1}
runs:
  small:
    dataset: digits
    net: {kind: plain, width: 4}
    training: {batch: 100, learning_rate: 1.0e-2, warmup_kimg: 0, ema_halflife_kimg: 0.1, precision: float32}
    milestones: [0, 1]
    sampler: short
"""
LOCAL = Machine(None, workers=0, compile=False, gradient_checkpointing=False, checkpoint_minutes=60)


@pytest.fixture
def extended():
    with NETWORKS.extended(PLAIN_NETWORK), SAMPLERS.extended(EULER_SAMPLER):
        yield


@pytest.fixture
def signal_handlers():
    """Restore the handlers that training replaces."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def validated(text: str) -> dict:
    return validate(yaml.safe_load(text), config_schema(REPOSITORY / "workflow/schemas/config.schema.yaml"))


def test_the_config_takes_the_new_network_and_sampler_with_their_settings(extended):
    config = validated(CONFIG)
    assert config["runs"]["small"]["net"] == {"kind": "plain", "width": 4}
    assert config["samplers"]["short"]["sigma_max"] == 80
    with pytest.raises(UserError, match=r"runs\.small\.net has an unknown key 'depth'"):
        validated(CONFIG.replace("width: 4", "width: 4, depth: 2"))
    with pytest.raises(UserError, match=r"a process of kind 'vp' takes heun"):
        validated(CONFIG.replace("width: 4}", "width: 4}\n    process: {kind: vp}"))


def test_without_their_entries_network_and_sampler_are_unknown():
    with SAMPLERS.extended(EULER_SAMPLER), pytest.raises(UserError, match=r"runs\.small\.net\.kind"):
        validated(CONFIG)
    with NETWORKS.extended(PLAIN_NETWORK), pytest.raises(UserError, match=r"samplers\.short\.kind"):
        validated(CONFIG)


def test_the_new_sampler_is_built_for_a_process_and_counts_its_passes(extended):
    config = validated(CONFIG)
    settings, spec = config["samplers"]["short"], config["runs"]["small"]["process"]
    assert samplers.build(process.build(spec), settings) == EulerSampler(steps=3, sigma_max=80)
    assert samplers.passes(spec, settings) == 3


def test_the_new_network_is_built_and_its_size_is_known(extended):
    spec = {"kind": "plain", "width": 4, "resolution": 8, "channels": 3, "augment_labels": 0}
    assert isinstance(nets.build(spec), PlainNet) and not nets.takes_labels("plain")
    assert size(spec).parameters == 2 * 3 * 4 * 9 + 4 + 3
    assert size(spec).flops == 2 * 64 * (2 * 3 * 4 * 9)
    with pytest.raises(UserError, match=r"net: .*depth"):
        nets.build({**spec, "depth": 2})


def test_the_new_network_is_trained_and_the_new_sampler_generates_images_from_it(
    extended, digits, signal_handlers, tmp_path
):
    config = validated(CONFIG)
    run = {key: config["runs"]["small"][key] for key in ("dataset", "net", "process", "training")} | {"seed": 0}
    trainer = Trainer(Rank(0, 1, torch.device("cpu")), identity(run, read_manifest(digits)), tmp_path / "state", LOCAL)
    with lock(tmp_path / "state" / "lock"):
        trainer.run(digits, 1, [0, 1])
    generated = []
    for kimg in (0, 1):
        folder = tmp_path / f"samples at {kimg}"
        sample(config["samplers"]["short"], milestone_folder(tmp_path / "state", kimg), folder / "0-of-1.tar")
        gather(folder, 1)
        generated.append([image for _key, image, _label in read_images(folder)])
    assert [[image.shape for image in images] for images in generated] == [[(8, 8, 3)] * 2] * 2
    assert (generated[0][0] != generated[1][0]).any()  # training changed the weights
