"""The workflow in a copy of the sources and a folder of its own."""

import json
import os
import re
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image
from sklearn.datasets import load_digits

from helpers.places import REPOSITORY, SHARED

ODD = """it's "odd" $(touch pwned)"""
IMAGES, SIZE = 64, 32
RESULT = "results/tiny_fid.csv"
WEIGHTS = "results/runs/tiny/1/ema.safetensors"
# Everything from the sampler to the table, as an edit of the sampler or of its code reruns it.
SCORE_AGAIN = {"score": 1, "cost": 1, "tabulate": 1}
SAMPLE_AGAIN = {"sample": 2, "gather_samples": 1, "measure": 2, "gather_features": 1, **SCORE_AGAIN}
# One thread a job, so that two small jobs run at a time.
SMALL_JOBS = ["--cores", "2", "--set-threads", "train=1", "sample=1", "measure=1", "score=1"]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and all that it said."""

    status: int
    text: str

    @property
    def planned(self) -> dict[str, int]:
        """How many jobs of each rule a dry run would run."""
        assert self.status == 0, self.text
        table = self.text.partition("Job stats:")[2].partition("total")[0]
        assert table or "Nothing to be done" in self.text, self.text
        return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


@dataclass(frozen=True)
class Workflow:
    """A copy of the sources, and a folder of its own with a config and results."""

    sources: Path
    folder: Path

    def command(self, *arguments: str) -> list[str]:
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(self.sources / "Snakefile")]
        return [*snakemake, "--profile", str(REPOSITORY / "profiles/local"), *arguments]

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(self.sources)},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options},
        )

    def run(self, *arguments: str) -> Ended:
        process = self.start(*arguments)
        text, _ = process.communicate(timeout=900)
        return Ended(process.returncode, text)

    def make(self, *targets: str) -> Ended:
        return self.run(*SMALL_JOBS, "--", *targets)

    def plan(self, *targets: str) -> dict[str, int]:
        return self.run("--dry-run", *(targets or [RESULT])).planned

    @contextmanager
    def config(self):
        """The configuration to change; put back afterwards."""
        path = self.folder / "config.yaml"
        text = path.read_text()
        config = yaml.safe_load(text)
        yield Edited(config, path)
        path.write_text(text)

    @contextmanager
    def source(self, *edits: tuple[str, str, str]):
        """Sources under ``diffit/`` with edits ``(file, start or end, text)``; put back afterwards."""
        before = {name: (self.sources / "diffit" / name).read_text() for name, *_ in edits}
        for name, where, text in edits:
            path = self.sources / "diffit" / name
            path.write_text(text + path.read_text() if where == "start" else path.read_text() + text)
        yield
        for name, text in before.items():
            (self.sources / "diffit" / name).write_text(text)

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def json(self, path: str) -> dict:
        return json.loads(self.read(path))


class Edited(dict):
    """A configuration that reaches its file when ``save`` is called."""

    def __init__(self, config: dict, path: Path):
        super().__init__(config)
        self._path = path

    def save(self) -> None:
        self._path.write_text(yaml.safe_dump(dict(self), sort_keys=False))


def write_pictures(folder: Path) -> None:
    """CIFAR-10 images as their owner keeps them, one folder a class; digits where the shared data are absent."""
    archive = SHARED / "data" / "cifar10_jpeg.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as opened:
            names = sorted(name for name in opened.namelist() if name.startswith("train/") and name.endswith(".jpg"))
            for name in names[:: len(names) // IMAGES][:IMAGES]:
                path = folder / name.removeprefix("train/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(opened.read(name))
        return
    scans = load_digits()
    for i in range(IMAGES):
        path = folder / str(scans.target[i]) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((scans.images[i] * 15).astype("uint8")).resize((SIZE, SIZE)).save(path)


def tiny_config(pictures: Path, network: Path) -> dict:
    return {
        "datasets": {"pictures": {"source": "folder", "resolution": SIZE, "shards": 2, "path": str(pictures)}},
        "samplers": {"short": {"steps": 2, "images": 16, "shards": 2, "block": 8}},
        "runs": {
            "tiny": {
                "dataset": "pictures",
                "net": {
                    "width": 8, "multipliers": [1, 1], "blocks": 1, "window": 4, "head_dim": 8, "mlp_ratio": 1,
                    "time_dim": 16, "groups": 2, "dropout": 0.1,
                },
                "process": {"augment": {"probability": 0.1, "xflip": True}},
                "training": {
                    "batch": 8, "learning_rate": 1e-3, "warmup_kimg": 0.1, "ema_halflife_kimg": 0.2,
                    "precision": "float32",
                },
                "milestones": [0, 1],
                "sampler": "short",
                "baselines": ["real"],
                "paper": {"fid": 1.95, "source": "Table 2"},
            }
        },
        "inception": {"path": str(network / "inception.pt")},
    }  # fmt: skip
