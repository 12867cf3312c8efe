"""A data source and a metric that are added only through the registries work in the config and in all stages."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.places import REPOSITORY

from diffit import score as score_stage
from diffit.cli import UserError
from diffit.config.schema import config_schema
from diffit.config.validation import validate
from diffit.data.sources import SOURCES, DataSource
from diffit.download import download
from diffit.measure import measure
from diffit.registry import BOOLEAN, COUNT, NATURAL, constant, default
from diffit.scoring.metrics import METRICS, Metric, RealImages
from diffit.shard import shard
from diffit.store.fingerprint import fingerprint
from diffit.store.manifest import gather, read_images

CONFIG = """
datasets:
  stripes: {source: stripes, resolution: 8, count: 5, shards: 2}
samplers:
  few: {steps: 18, images: 4, shards: 1}
runs:
  stripes:
    dataset: stripes
    sampler: few
    milestones: [1]
    training: {batch: 4, learning_rate: 1.0e-3, warmup_kimg: 0, ema_halflife_kimg: 5, precision: float32}
    net: {width: 8, multipliers: [1], blocks: 1, window: 4, head_dim: 4, time_dim: 8, groups: 4, dropout: 0.0}
    paper: {mean_distance: 1.5, source: nowhere, protocol: clean, statistic: single}
"""
STRIPES = DataSource(
    name="stripes",
    description="coloured stripes of 8×8 pixels",
    module="helpers.stripes",
    settings={
        "resolution": constant(8),
        "count": COUNT,
        "seed": default(NATURAL, 0),
        "labels": default(BOOLEAN, False),
        "resize": constant("none"),
    },
    classes=2,
)


def distance_of_means(values: np.ndarray, real: RealImages) -> tuple[float]:
    return (float(np.square(values.mean(axis=0, dtype=np.float64) - real.gaussians["features"].mean).sum()),)


MEAN_DISTANCE = Metric(
    name="mean_distance",
    gives={"mean_distance": "squared distance between the means of the features"},
    protocols=("clean",),
    compute=distance_of_means,
    gaussian=True,
    compared=lambda real: real.count,
)


@pytest.fixture
def extended():
    with SOURCES.extended(STRIPES), METRICS.extended(MEAN_DISTANCE):
        yield


def validated(config: dict) -> dict:
    return validate(config, config_schema(REPOSITORY / "workflow/schemas/config.schema.yaml"))


def features_of_stripes(folder: Path, network: Path, seed: int) -> Path:
    """Run download, shard and measure with two shards; return the folder of features."""
    spec = validated(yaml.safe_load(CONFIG))["datasets"]["stripes"] | {"seed": seed}
    data, features = folder / "stripes", folder / "features"
    download(spec, folder / "archive")
    for k in range(2):
        shard(spec, folder / "archive", data / f"{k}-of-2.tar")
    gather(data, 2)
    assert len(list(read_images(data))) == 5
    for k in range(2):
        measure(data / f"{k}-of-2.tar", features / f"{k}-of-2.npz", network)
    gather(features, 2)
    return features


def test_the_config_takes_the_new_source_and_the_new_score(extended):
    config = validated(yaml.safe_load(CONFIG))
    assert config["datasets"]["stripes"]["seed"] == 0
    assert config["runs"]["stripes"]["paper"]["mean_distance"] == 1.5
    config["datasets"]["stripes"]["colour"] = "red"
    with pytest.raises(UserError, match=r"datasets\.stripes has an unknown key 'colour'"):
        validated(config)


def test_without_its_entry_the_source_is_unknown():
    with pytest.raises(UserError, match=r"datasets\.stripes"):
        validated(yaml.safe_load(CONFIG))


def test_the_score_file_has_the_new_score_of_the_new_source(extended, inception, tmp_path, monkeypatch):
    samples, real = (features_of_stripes(tmp_path / str(seed), inception, seed) for seed in (1, 2))
    monkeypatch.setattr("sys.argv", ["score", str(samples), str(real), str(tmp_path / "score.json")])
    score_stage.main()
    scores = {metric["name"]: metric for metric in json.loads((tmp_path / "score.json").read_text())["metrics"]}
    assert list(scores) == ["fid", "kid", "mean_distance"]
    means = [
        np.concatenate([np.load(folder / f"{k}-of-2.npz")["features"] for k in range(2)]).mean(axis=0, dtype=np.float64)
        for folder in (samples, real)
    ]
    assert scores["mean_distance"]["value"] == pytest.approx(np.square(means[0] - means[1]).sum(), rel=1e-9)
    assert scores["mean_distance"]["reference_images"] == 5 and scores["mean_distance"]["biased"]


def test_the_help_of_the_score_stage_describes_the_new_score(extended, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["score", "--help"])
    with pytest.raises(SystemExit):
        score_stage.main()
    assert "squared distance between the means of the features (clean)" in capsys.readouterr().out


def test_the_code_of_the_new_source_is_in_the_fingerprints_of_its_data_only():
    digits = SOURCES["digits"].module
    assert fingerprint(["diffit.shard", STRIPES.module]) != fingerprint(["diffit.shard", digits])
    before = fingerprint(["diffit.shard", digits])
    with SOURCES.extended(STRIPES):
        assert fingerprint(["diffit.shard", digits]) == before
