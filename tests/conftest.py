"""Fixtures that several test files share: reference tensors, real images, a tiny data set and how to train on it.

Fixtures import what they need, so that tests which need no torch run where it is not installed.
"""

import contextlib
import copy
import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from helpers import differences
from helpers.configurations import DIGITS, SMALL_VAE, TINY_RUN
from helpers.places import SHARED
from helpers.training import Training

# Two cores are shared by what the tests start; threads that wait for each other would only slow them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
with contextlib.suppress(ModuleNotFoundError):
    import torch

    torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--differences", action="store_true", help="print the largest differences from reference values")


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("differences"):
        terminalreporter.section("largest differences, relative to the largest value of the reference")
        for what, difference in sorted(differences.largest.items()):
            terminalreporter.write_line(f"{difference:8.1e}  {what}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material is not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """Real images: an ImageNet sample and CIFAR-10 as JPEG."""
    return shared / "data"


@pytest.fixture(scope="session")
def golden(shared: Path):
    """Load reference tensors by name."""
    from safetensors.torch import load_file

    return lambda name: load_file(shared / "golden" / f"{name}.safetensors")


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """The digits as the workflow makes them: two tars and a manifest."""
    from diffit import download, shard
    from diffit.store.manifest import gather

    root = tmp_path_factory.mktemp("digits")
    archive, data = root / "archives" / "digits", root / "data" / "digits"
    download.download(DIGITS, archive)
    for number in range(2):
        shard.shard(DIGITS, archive, data / f"{number}-of-2.tar")
    gather(data, 2)
    return data


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    """The digits with their classes, in two tars."""
    from diffit import download, shard
    from diffit.store.manifest import gather

    root, spec = tmp_path_factory.mktemp("labelled"), {**DIGITS, "labels": True}
    download.download(spec, root / "archive")
    for number in range(2):
        shard.shard(spec, root / "archive", root / "digits" / f"{number}-of-2.tar")
    gather(root / "digits", 2)
    return root / "digits"


@pytest.fixture(scope="session")
def small_vae(labelled, tmp_path_factory) -> Path:
    from diffit.training import train_vae

    folder = tmp_path_factory.mktemp("vaes") / "small"
    train_vae.train(SMALL_VAE, labelled, folder)
    return folder


@pytest.fixture(scope="session")
def latents(labelled, small_vae, tmp_path_factory) -> Path:
    from diffit import encode
    from diffit.store.manifest import gather

    folder = tmp_path_factory.mktemp("latents") / "digits"
    for number in range(2):
        encode.encode(labelled / f"{number}-of-2.tar", small_vae, folder / f"{number}-of-2.tar")
    gather(folder, 2)
    return folder


@pytest.fixture
def tiny_run() -> dict:
    return copy.deepcopy(TINY_RUN)


@pytest.fixture(scope="session")
def inception(tmp_path_factory) -> Path:
    """The network folder as the download stage makes it."""
    from diffit import download

    folder = tmp_path_factory.mktemp("inception")
    download.download({"source": "inception"}, folder)
    return folder


@pytest.fixture(scope="session")
def inception_with_classes(inception, tmp_path_factory) -> Path:
    """The network folder as the download stage makes it of a file in NVIDIA's form, with classes drawn at random."""
    from helpers.inception import WithClasses

    from diffit import download
    from diffit.store import files

    folder = tmp_path_factory.mktemp("inception_with_classes")
    layers, mine = torch.jit.load(inception / "inception.pt").eval().net.layers, folder / "mine.pt"
    torch.jit.script(WithClasses(layers).eval()).save(mine)
    download.download({"source": "inception", "path": str(mine), "sha256": files.sha256(mine)}, folder / "network")
    return folder / "network"


@pytest.fixture(scope="session")
def cifar(shared_data, tmp_path_factory) -> tuple[Path, Path]:
    """Two folders of 40 real images each, as PNG."""
    from PIL import Image

    folders = tuple(tmp_path_factory.mktemp("cifar") / name for name in ("a", "b"))
    with zipfile.ZipFile(shared_data / "cifar10_jpeg.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/") and name.endswith(".jpg"))
        for i, name in enumerate(names[:: len(names) // 80][:80]):
            folders[i % 2].mkdir(exist_ok=True)
            Image.open(io.BytesIO(archive.read(name))).save(folders[i % 2] / f"{i:03d}.png")
    return folders


@pytest.fixture
def training(tiny_run, digits, tmp_path):
    """Make a :class:`Training` of the tiny run in a folder of its own."""
    return lambda name="run", **changes: Training({**tiny_run, **changes}, digits, tmp_path / name)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a real file system of a given size (as ``mount -o size=`` takes it); skips where that is not allowed."""
    mounted = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk of {size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("cannot mount a small file system here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
