"""The latent path of the paper from end to end on 141 real ImageNet images: both resolutions, trained and released."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from helpers.places import REPOSITORY
from safetensors.torch import load_file

from diffit.data.imagenet_classes import WNIDS
from diffit.data.images import center_crop, decode
from diffit.store import tars
from diffit.store.manifest import read_images, read_manifest, shard_paths


def write_batch(path, images, resolution: int) -> None:
    """A file in the form of ADM's published batches: real images, and statistics of features at random."""
    rng = np.random.default_rng(0)
    pictures = [center_crop(decode(path, path.name), resolution) for path in sorted(images.rglob("*.JPEG"))[:20]]
    np.savez(
        path,
        arr_0=np.stack([np.asarray(picture) for picture in pictures]),
        mu=rng.standard_normal(2048), sigma=np.cov(rng.standard_normal((2048, 2100))),
        mu_s=rng.standard_normal(2023), sigma_s=np.cov(rng.standard_normal((2023, 2100))),
    )  # fmt: skip


def config(images, inception, batch, resolution: int) -> dict:
    run = {
        "dataset": "imagenet",
        "vae": "small",
        # The paper's network but for its size.
        "net": {"kind": "latent", "patch_size": 2, "hidden_size": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2},
        "process": {"kind": "ddpm", "label_dropout": 0.1, "xflip": True},
        "sampler": "few",
    }
    published = {"repository": "nvidia/DiffiT", "file": "diffit.safetensors", "classes": 1000}
    return {
        "datasets": {
            "imagenet": {
                "source": "imagenet", "resolution": resolution, "shards": 2, "path": str(images), "subset": True,
                "references": {"adm": "batch"},
            },
            "batch": {"source": "adm", "resolution": resolution, "shards": 2, "path": str(batch)},
        },
        "vaes": {
            "small": {
                "kind": "trained", "dataset": "imagenet", "channels": [4, 4, 8, 8], "groups": 4, "steps": 20,
                "batch": 4, "learning_rate": 1e-3, "kl_weight": 1e-3,
            }
        },
        "samplers": {
            "few": {
                "kind": "ddpm", "steps": 3, "images": 16, "shards": 2, "block": 8, "precision": "tf32",
                "guidance": {"kind": "power-cosine", "weight": 4.6},
            }
        },
        "runs": {
            "small": {
                **run,
                "training": {
                    "batch": 20, "optimizer": "adamw", "learning_rate": 3e-4, "warmup_kimg": 0,
                    "ema_halflife_kimg": 0.2, "precision": "bfloat16",
                },
                "milestones": [1],
            },
            # What is published comes as such a file: here the toy's.
            "published": {**run, "weights": {**published, "path": "results/runs/small/1/ema.safetensors"},
                             "protocols": ["clean", "adm"]},
        },
        "inception": {"path": str(inception / "inception.pt")},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize("resolution", [256, 512])
def test_the_whole_chain_on_real_imagenet_images(shared_data, inception, tmp_path, resolution):
    images = shared_data / "imagenet_sample"
    write_batch(tmp_path / "VIRTUAL.npz", images, resolution)
    described = config(images, inception, tmp_path / "VIRTUAL.npz", resolution)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    side, results = resolution // 8, tmp_path / "results"

    def make(*targets: str) -> str:
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [*snakemake, "--profile", str(REPOSITORY / "profiles/local"), *targets]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return ended.stderr + ended.stdout

    make("results/small_fid.csv")
    exported = f"results/samples/published/released/few/samples_16x{resolution}x{resolution}x3.npz"
    make("results/published_fid.csv", exported)

    data = read_manifest(results / "data/imagenet")
    assert (data["count"], data["resolution"], data["classes"]) == (141, resolution, 1000)
    labels = [label for _key, _image, label in read_images(results / "data/imagenet")]
    assert [WNIDS[label] for label in labels] == sorted(path.name for path in (images / "train").iterdir())
    latents = read_manifest(results / "latents/imagenet/small")
    assert (latents["count"], latents["vae"]["factor"]) == (141, 8)
    member = next(tars.read_tar(shard_paths(results / "latents/imagenet/small")[0]))[1]
    assert member["npy"].shape == (2, 2, 4, side, side)

    weights = load_file(results / "runs/small/1/ema.safetensors")
    assert weights["y_embedder.embedding_table.weight"].shape == (1001, 16)
    for run, kimg in [("small", "1"), ("published", "released")]:
        rows = {(row["protocol"], row["metric"]): row for row in csv.DictReader((results / f"{run}_fid.csv").open())}
        row = rows["clean", "fid"]
        assert float(row["value"]) > 0 and (row["images"], row["reference_images"]) == ("16", "141")
        samples = list(read_images(results / f"samples/{run}/{kimg}/few"))
        assert all(image.shape == (resolution, resolution, 3) for _key, image, _label in samples)
    # Under adm it compares with the published batch: statistics of all of ImageNet, and the 20 images that are in it.
    counts = {metric: row["reference_images"] for (protocol, metric), row in rows.items() if protocol == "adm"}
    neighbours = dict.fromkeys(["precision", "recall", "precision_float32", "recall_float32"], "20")
    assert counts == {"fid": "1281167", "sfid": "1281167", "inception_score": "", **neighbours}
    assert rows["adm", "inception_score"]["value"] == "" and float(rows["adm", "sfid"]["value"]) > 0
    assert rows["adm", "fid"]["reference"] == "imagenet"
    # The same weights and seeds give the same images, whichever way the weights came.
    with np.load(tmp_path / exported) as stored:
        trained = list(read_images(results / "samples/small/1/few"))
        assert np.array_equal(stored["arr_0"], np.stack([image for _key, image, _label in trained]))
        assert len(set(stored["arr_1"].tolist())) > 10  # drawn from a thousand
    assert "Nothing to be done" in make("results/small_fid.csv", "results/published_fid.csv")
