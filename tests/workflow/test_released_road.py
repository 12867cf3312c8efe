"""From the released weights to the scores of Table 1, without ImageNet: all downloads come from this machine."""

import csv
import shutil

import numpy as np
import pytest
import yaml
from helpers import archives
from helpers import server as behaviour
from helpers.places import REPOSITORY
from helpers.server import COMMIT, Server
from helpers.workflow import Workflow
from PIL import Image
from safetensors.torch import save

from diffit.data import adm_batch
from diffit.nets import build
from diffit.scoring import inception_weights
from diffit.store import files
from diffit.weights import vae

RUN, TARGET = "imagenet256_released", "results/imagenet256_released_fid.csv"
SIZES = {"hidden_size": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
VAE_REVISION = "f04b2c4b98319346dad8c65879f680b1997b204a"
IMAGES = 40


def released_weights() -> bytes:
    """A network of the released form with small sizes, and with the index that the release stores in each block."""
    import torch

    shape = {"kind": "latent", "patch_size": 2, "input_size": 32, "channels": 4, "num_classes": 1000}
    state = {name: torch.randn_like(value) * 0.02 for name, value in build({**shape, **SIZES}).state_dict().items()}
    indices = {f"blocks.{i}.attn.relative_position_index": torch.zeros(256, 256, dtype=torch.int64) for i in range(2)}
    return save({**state, **indices})


def published_vae(folder) -> dict[str, bytes]:
    """An AutoencoderKL in the format of diffusers with the published factor and scale."""
    vae.build({"latent_channels": 4, "channels": [4, 4, 8, 8], "layers": 1, "groups": 4}).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pictures(count: int) -> np.ndarray:
    """Random pictures with coarse and fine structure, uint8 [count, 256, 256, 3]."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((256, 256)) for _ in range(count)]
    return np.stack([np.asarray(picture) for picture in coarse])


@pytest.fixture
def server(tmp_path, inception_with_classes):
    """The hub with weights and VAE, ADM's batch and NVIDIA's Inception network; each connection breaks once."""
    with Server() as running:
        (weights,) = running.repository("nvidia/DiffiT", {"diffit_256.safetensors": released_weights()})
        contents = published_vae(tmp_path / "published")
        _, of_vae = running.repository("stabilityai/sd-vae-ft-ema", contents, VAE_REVISION)
        batch = adm_batch.URLS[256].removeprefix("https:/")
        running.file(batch, archives.adm_batch(tmp_path / "batch.npz", pictures(20), seed=0).read_bytes())
        network = inception_weights.NVIDIA_URL.removeprefix("https:/")
        running.file(network, (inception_with_classes / "inception.pt").read_bytes())
        running.broken = (weights, of_vae, batch, network)
        for path in running.broken:
            running.behave(path, behaviour.stops, behaviour.healthy)
        yield running


@pytest.mark.slow
def test_released_weights_are_downloaded_sampled_scored_and_tabled(
    server, inception_with_classes, tmp_path, monkeypatch
):
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(REPOSITORY / "config.yaml", work)
    small = {
        "datasets": {"imagenet256_adm": {"shards": 2}},
        "samplers": {"ddpm250-cosine-4_4-50k": {"steps": 3, "images": IMAGES, "shards": 2, "block": 10}},
        "runs": {RUN: {"net": SIZES}},
        "inception": {
            "url": inception_weights.NVIDIA_URL,
            "sha256": files.sha256(inception_with_classes / "inception.pt"),
        },
    }
    (work / "small.yaml").write_text(yaml.safe_dump(small))
    for name in ("HF_TOKEN", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("DIFFIT_MIRROR", server.address)
    ended = Workflow(REPOSITORY, work).run(TARGET, "--configfile", "small.yaml")
    assert ended.status == 0, ended.text

    rows = {row["metric"]: row for row in csv.DictReader((work / TARGET).open())}
    print((work / TARGET).with_suffix(".md").read_text())
    printed = {"fid", "sfid", "inception_score", "precision", "recall"}
    assert rows.keys() == {*printed, "precision_float32", "recall_float32"}
    for name, row in rows.items():
        assert (row["protocol"], row["images"]) == ("adm", str(IMAGES)) and np.isfinite(float(row["value"])), name
    assert float(rows["fid"]["value"]) > 0 and float(rows["inception_score"]["value"]) >= 1
    assert rows["fid"]["reference_images"] == "1281167" and rows["precision"]["reference_images"] == "20"
    record = files.read_json(work / f"results/runs/{RUN}/released/config.json", "")
    assert record["commit"] == f"nvidia/DiffiT@{COMMIT}"
    assert record["published_sha256"] == files.sha256(next((work / "results/runs/.downloads").rglob("*.safetensors")))
    assert [[asked is not None for asked in server.asked(path)] for path in server.broken] == [[False, True]] * 4
    assert not list(work.rglob("*.part"))
