"""The latent path as the real configuration asks for it on the digits: what it reaches, and what it refuses."""

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml
from helpers.places import REPOSITORY

RESULT = "results/digits_latent_fid.csv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, inception):
    """A folder of its own with the real configuration, and the result made there."""
    folder = tmp_path_factory.mktemp("digits_latent")
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    write(folder, {**config, "inception": {"path": str(inception / "inception.pt")}})
    ended = snakemake(folder, RESULT)
    assert ended.returncode == 0, ended.stderr
    return folder


def write(folder, config: dict) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def snakemake(folder, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [*command, "--profile", str(REPOSITORY / "profiles/local"), *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.extended
def test_most_digits_are_of_the_class_asked_for_and_the_vae_gives_them_back(folder):
    scores = {row["metric"]: float(row["value"]) for row in csv.DictReader((folder / RESULT).open())}
    assert scores["class_accuracy"] >= 0.7
    vae = json.loads((folder / "results/vaes/digits-vae/vae.json").read_text())
    assert vae["psnr"] >= 30


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize(
    "place, key, value, sentence",
    [
        ("vaes", "digits-vae", {"kl_weight": 2e-3}, "vae_spec.kl_weight: 0.001 → 0.002"),
        ("runs", "digits_latent", {"vae": "sd-vae-ft-ema"}, "vae_spec.kind: trained → published"),
    ],
    ids=["edited", "exchanged"],
)
def test_another_vae_is_refused_while_everything_made_with_the_old_one_still_stands(
    folder, place, key, value, sentence
):
    text = (folder / "config.yaml").read_text()
    config = yaml.safe_load(text)
    config[place][key].update(value)
    before = sorted(path for path in folder.glob("results/**/*") if path.is_file())
    write(folder, config)
    try:
        ended = snakemake(folder, RESULT)
    finally:
        (folder / "config.yaml").write_text(text)
    assert ended.returncode != 0 and sentence in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted(path for path in folder.glob("results/**/*") if path.is_file()) == before
