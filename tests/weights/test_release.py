"""Published weights as a milestone: taken whole, or refused with what differs."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffit.cli import UserError
from diffit.nets import build
from diffit.nets.latent import LatentConfig, LatentDiffiT
from diffit.sample import sample
from diffit.store import files
from diffit.store.manifest import gather, read_images
from diffit.weights import milestone, release, vae

NET = {"kind": "latent", "patch_size": 2, "hidden_size": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
SHAPE = {"input_size": 4, "channels": 4, "num_classes": 10}
SAMPLER = {
    "kind": "ddpm", "steps": 2, "images": 4, "first_seed": 0, "block": 4, "precision": "tf32", "decoder": None,
    "labels": "random", "guidance": {"kind": "power-cosine", "weight": 4.4, "power": 4, "channels": 3, "tolerance": 0},
}  # fmt: skip


@pytest.fixture
def published(tmp_path):
    """Weights as they are published: with the index that each block can rebuild."""
    torch.manual_seed(0)
    state = {name: torch.randn_like(value) for name, value in build({**NET, **SHAPE}).state_dict().items()}
    state |= {f"blocks.{i}.attn.relative_position_index": torch.zeros(4, 4, dtype=torch.int64) for i in range(2)}
    save_file(state, tmp_path / "published.safetensors")
    return tmp_path / "published.safetensors"


def spec(path, **weights) -> dict:
    described = {"repository": "nvidia/DiffiT", "file": "diffit_256.safetensors", "classes": 10, "revision": None}
    return {
        "dataset": "digits",
        "resolution": 8,
        "net": NET,
        "process": {"kind": "ddpm", "timesteps": 1000, "label_dropout": 0.1, "xflip": True},
        "weights": {**described, "path": path and str(path), "sha256": None, **weights},
    }


def test_published_weights_become_a_milestone_that_is_sampled_like_any_other(published, small_vae, tmp_path):
    folder = tmp_path / "runs" / "released"
    release.release(spec(published), small_vae, folder)
    net, record = milestone.load(folder)
    assert (record["kimg"], record["commit"]) == ("released", str(published))
    assert record["published_sha256"] == files.sha256(published)
    assert net.config == LatentConfig(**SHAPE, patch_size=2, hidden_size=16, depth=2, num_heads=2, mlp_ratio=2)
    sample(SAMPLER, folder, tmp_path / "samples" / "0-of-1.tar", small_vae)
    gather(tmp_path / "samples", 1)
    images = [image for _key, image, _label in read_images(tmp_path / "samples")]
    assert [image.shape for image in images] == [(8, 8, 3)] * 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("blocks.1.mlp.fc1.bias"), r"missing: blocks\.1\.mlp\.fc1\.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda state: state.update(pos_embed=state["pos_embed"].half()), r"pos_embed is float16 .* should be float32"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused_before_anything_is_written(
    published, small_vae, tmp_path, change, sentence
):
    state = load_file(published)
    change(state)
    save_file(state, published)
    with pytest.raises(UserError, match=sentence) as refused:
        release.release(spec(published), small_vae, tmp_path / "out")
    assert str(published) in str(refused.value) and not (tmp_path / "out").exists()


def test_another_class_count_and_another_resolution_are_refused_by_name(published, small_vae, tmp_path):
    with pytest.raises(UserError, match=r"y_embedder\.embedding_table\.weight is float32 \[11, 16\] .* \[1001, 16\]"):
        release.release(spec(published, classes=1000), small_vae, tmp_path / "out")
    with pytest.raises(UserError, match="use weights for its resolution and number of classes"):
        release.release({**spec(published), "resolution": 16}, small_vae, tmp_path / "out")


def test_missing_weights_are_refused_with_where_to_put_them(published, small_vae, tmp_path, monkeypatch):
    missing = r"path: '.*' does not exist or is not a file; put diffit_256\.safetensors of nvidia/DiffiT there"
    with pytest.raises(UserError, match=missing):
        release.release(spec(tmp_path / "none"), small_vae, tmp_path / "out")
    with pytest.raises(UserError, match=r"has the sha256 .* instead of 0000"):
        release.release(spec(published, sha256="0" * 64), small_vae, tmp_path / "out")
    published.write_bytes(published.read_bytes()[:1000])
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        release.release(spec(published), small_vae, tmp_path / "out")
    # In a process of its own, because the hub's client reads these variables when it is imported.
    code = (
        "import json, sys; from pathlib import Path; from diffit.cli import run_command;"
        "from diffit.weights import release;"
        "run_command(lambda: release.release(json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    arguments = [json.dumps(spec(None)), str(small_vae), str(tmp_path / "out")]
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "could not be downloaded" in ended.stderr and "set weights.path" in ended.stderr


@pytest.mark.slow
@pytest.mark.extended
def test_weights_of_the_released_size_load_and_sample_an_image_within_16_gb(tmp_path):
    """561M parameters and a VAE of the published shape, in a process whose address space is bounded."""
    config = LatentConfig(
        input_size=32, channels=4, patch_size=2, hidden_size=1152, depth=28, num_heads=16, mlp_ratio=4, num_classes=1000
    )
    with torch.device("meta"):
        state = LatentDiffiT(config).state_dict()
    generator = torch.Generator().manual_seed(0)
    save_file(
        {name: torch.randn(value.shape, generator=generator) * 0.02 for name, value in state.items()},
        tmp_path / "diffit_256.safetensors",
    )
    shape = {"latent_channels": 4, "channels": [128, 256, 512, 512], "layers": 2, "groups": 32}
    vae.write(tmp_path / "vae", vae.build(shape), 0.18215)
    net = {**NET, **{name: getattr(config, name) for name in NET if name != "kind"}}
    described = {**spec(tmp_path / "diffit_256.safetensors", classes=1000), "net": net, "resolution": 256}
    code = (
        "import json, sys; from pathlib import Path; from diffit import sample; from diffit.weights import release;"
        "folder = Path(sys.argv[1]);"
        "release.release(json.loads(sys.argv[2]), folder / 'vae', folder / 'released');"
        "sample.sample(json.loads(sys.argv[3]), folder / 'released', folder / 's' / '0-of-1.tar', folder / 'vae')"
    )
    sampler = {**SAMPLER, "images": 1, "block": 1}
    command = [sys.executable, "-c", code, str(tmp_path), json.dumps(described), json.dumps(sampler)]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    assert usage.ru_maxrss < 16e9 / 1024
    gather(tmp_path / "s", 1)
    ((_key, image, _label),) = read_images(tmp_path / "s")
    assert image.shape == (256, 256, 3)
