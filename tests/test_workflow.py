"""The workflow itself, run for real on tiny data in a copy: what it makes, and what an edit makes it do again."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, SHARED
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from diffit import files, tars

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
        text, _ = process.communicate(timeout=300)
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
        "datasets": {"pictures": {"source": "folder", "resolution": SIZE, "pieces": 2, "path": str(pictures)}},
        "samplers": {"short": {"steps": 2, "images": 16, "pieces": 2, "block": 8}},
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


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("user") / f"pictures, {ODD}"
    write_pictures(folder)
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """The sources as a clone has them, committed, in a folder with an odd name."""
    folder = tmp_path_factory.mktemp("clone") / ODD
    for name in ("diffit", "workflow"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(REPOSITORY / "Snakefile", folder)
    git = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@example.org",
        "-c",
        "commit.gpgsign=false",
    ]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "Sources"]):
        subprocess.run([*git, *arguments], check=True)
    return folder


@pytest.fixture(scope="session")
def done(sources, pictures, inception, tmp_path_factory) -> Workflow:
    """The whole chain, run once. Tests leave it as they find it; those that make results take :func:`fork`."""
    workflow = Workflow(sources, tmp_path_factory.mktemp("work"))
    (workflow.folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(pictures, inception), sort_keys=False))
    ended = workflow.make(RESULT)
    assert ended.status == 0, ended.text
    return workflow


@pytest.fixture
def fork(done, tmp_path) -> Workflow:
    """A copy of the finished workflow with results of its own."""
    shutil.copytree(done.folder, tmp_path / "work", ignore=shutil.ignore_patterns("inception.pt"))
    os.link(
        done.folder / "results/archives/inception/inception.pt",
        tmp_path / "work/results/archives/inception/inception.pt",
    )
    return Workflow(done.sources, tmp_path / "work")


def snapshot(folder: Path) -> dict[str, tuple]:
    """Each file under a folder with its inode, time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, files.sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ------------------------------------------------------------------------------------------------ what it makes


def test_the_table_says_of_each_metric_how_it_was_made(done):
    rows = list(csv.DictReader(done.read(RESULT).decode().splitlines()))
    assert [row["metric"] for row in rows] == ["fid", "kid", "fid_disjoint", "fid_real"]
    head = subprocess.run(["git", "-C", done.sources, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    weights = hashlib.sha256(done.read(WEIGHTS)).hexdigest()
    for row in rows:
        assert float(row["value"]) == float(row["value"])
        assert row["protocol"] == "clean" and row["images"] == "16" and row["reference"] == "pictures"
        assert row["git_commit"] == head.stdout.strip()
        assert row["biased"] == str(row["metric"] != "kid")
        assert (row["paper"], row["paper_source"]) == (("1.95", "Table 2") if row["metric"] == "fid" else ("", ""))
        if row["metric"] != "fid_real":
            assert (row["seeds"], row["images_trained"], row["weights_sha256"]) == ("0–15", "1000", weights)
    assert {row["reference_images"] for row in rows[:2]} == {str(IMAGES)}
    assert "| fid " in done.read("results/tiny_fid.md").decode()


def test_every_stage_leaves_sealed_pieces_and_a_manifest(done):
    results = done.folder / "results"
    for folder, count, ending in [
        ("data/pictures", IMAGES, "tar"),
        ("data/pictures/features/clean", IMAGES, "npz"),
        ("samples/tiny/1/short", 16, "tar"),
        ("samples/tiny/1/short/features/clean", 16, "npz"),
    ]:
        manifest = tars.read_manifest(results / folder)
        assert manifest["count"] == count
        assert [piece["file"] for piece in manifest["pieces"]] == [f"{k}-of-2.{ending}" for k in range(2)]
        for piece in manifest["pieces"]:
            assert files.verify(results / folder / piece["file"])["sha256"] == piece["sha256"]
    samples = list(tars.read_images(results / "samples/tiny/1/short"))
    assert [key for key, _, _ in samples] == [f"{seed:08d}" for seed in range(16)]
    assert {image.shape for _, image, _ in samples} == {(SIZE, SIZE, 3)}


def test_pictures_show_samples_and_training_curve(done):
    for name in ("grid", "curve"):
        with Image.open(done.folder / f"results/tiny_{name}.png") as picture:
            assert min(picture.size) > SIZE
            picture.load()


def test_stages_outside_slurm_cost_what_nobody_knows(done):
    rows = list(csv.DictReader(done.read("results/tiny_cost.csv").decode().splitlines()))
    assert [row["stage"] for row in rows] == ["shard", "train", "sample", "measure", "all"]
    assert {row["gpu_hours"] + row["cpu_hours"] + row["elapsed_hours"] + row["max_memory_gib"] for row in rows} == {""}
    assert [int(row["note"].split()[0]) for row in rows[:-1]] == [2, 1, 2, 4]  # files made outside SLURM


def test_the_report_is_one_page_with_the_results(done, tmp_path):
    page = tmp_path / "report.html"
    ended = done.run("--report", str(page))
    assert ended.status == 0, ended.text
    text = page.read_text()
    assert all(name in text for name in ("tiny_fid.csv", "tiny_cost.csv", "tiny_grid.png", "tiny_curve.png"))


def test_nothing_in_a_path_is_run_by_the_shell(done, pictures):
    for folder in (done.sources, done.folder, pictures):
        assert not list(folder.parent.rglob("pwned"))


# ----------------------------------------------------------------------------- what an edit makes it do again


def test_nothing_runs_where_nothing_changed(done):
    assert done.plan() == {}


def test_cores_threads_and_training_options_rerun_nothing(done):
    options = ["--cores", "1", "--set-threads", "train=7", "--set-resources", "train:options='--microbatch 2'"]
    assert done.run("--dry-run", *options, "--", RESULT).planned == {}


def test_other_sampler_steps_rerun_from_sampling_on(done):
    with done.config() as config:
        config["samplers"]["short"]["steps"] = 3
        config.save()
        ended = done.run("--dry-run", RESULT)
    assert ended.planned == SAMPLE_AGAIN
    assert "Measure samples/tiny" in ended.text and "Measure data/" not in ended.text


def test_an_edit_of_the_sampling_code_reruns_from_sampling_on(done):
    with done.source(("sample.py", "end", "\nEDITED = True\n")):
        assert done.plan() == SAMPLE_AGAIN


def test_an_edit_of_the_network_reruns_sampling_and_never_training(done):
    with done.source(("nets/ushaped.py", "end", "\nEDITED = True\n")):
        assert done.plan() == SAMPLE_AGAIN


def test_an_edit_of_the_vae_code_reruns_nothing_of_an_image_space_run(done):
    with done.source(("vae.py", "end", "\nEDITED = True\n")):
        assert done.plan() == {}


def test_an_edit_of_the_score_code_scores_again(done):
    with done.source(("score.py", "end", "\nEDITED = True\n")):
        assert done.plan() == SCORE_AGAIN


def test_sets_are_seeds_of_the_same_samples_and_each_protocol_has_rows_of_its_own(fork):
    """Twice 8 images are the 16 that are there; what is measured for clean is not measured again."""
    with fork.config() as config:
        config["samplers"]["short"] |= {"images": 8, "sets": 2}
        config["runs"]["tiny"] |= {"protocols": ["edm", "clean"]}
        config["runs"]["tiny"]["paper"] |= {"protocol": "edm", "statistic": "minimum"}
        config.save()
        assert fork.plan() == {
            "measure": 4, "gather_features": 2, "reference": 1, "score": 2, "cost": 1, "tabulate": 1,
        }  # fmt: skip
        ended = fork.make(RESULT)
        assert ended.status == 0, ended.text
    rows = [row for row in csv.DictReader(fork.read(RESULT).decode().splitlines()) if row["metric"] == "fid"]
    shown = [(row["protocol"], row["statistic"], row["seeds"], row["paper"]) for row in rows]
    assert shown == [("edm", "minimum", "0–7, 8–15", "1.95"), ("clean", "single", "0–7", "")]
    assert float(rows[0]["value"]) < float(rows[0]["mean"]) and float(rows[0]["std"]) > 0 and not rows[1]["std"]


def test_the_costs_asked_for_again_make_no_table_again(fork):
    before = fork.read(RESULT), (fork.folder / RESULT).stat().st_mtime_ns
    assert fork.run(*SMALL_JOBS, "--forcerun", "cost", "--", RESULT).status == 0
    assert (fork.read(RESULT), (fork.folder / RESULT).stat().st_mtime_ns) == before
    assert fork.plan() == {}


def test_comments_docstrings_and_formatting_rerun_nothing(done):
    edits = []
    for name in ("sample.py", "score.py", "nets/ushaped.py", "measure.py", "shard.py", "download.py"):
        edits += [(name, "start", "# A comment.\n\n"), (name, "end", "\n\n\n# Another comment.\n")]
    with done.source(*edits):
        path = done.sources / "diffit/sample.py"
        path.write_text(path.read_text().replace('"""', '"""In other words: ', 1))
        assert done.plan() == {}


def test_edits_of_bookkeeping_and_new_network_files_rerun_nothing(done):
    new = done.sources / "diffit/nets/novel.py"
    new.write_text("class Novel:\n    pass\n")
    with done.source(("tars.py", "end", "\nEDITED = True\n"), ("train.py", "end", "\nEDITED = True\n")):
        planned = done.plan()
    new.unlink()
    assert planned == {}


def test_a_new_run_reruns_nothing_of_the_others(done):
    with done.config() as config:
        config["runs"]["other"] = {**config["runs"]["tiny"], "seed": 1, "milestones": [1]}
        config.save()
        ended = done.run("--dry-run", RESULT, "results/other_fid.csv")
    assert ended.planned == {"train": 1, "curve": 1, **SAMPLE_AGAIN}
    assert "other" in ended.text and not re.search(r"^Job .*\btiny\b", ended.text, re.MULTILINE)


def test_an_added_picture_reruns_the_data_but_no_training_and_no_sampling(done, pictures):
    first = next(path for path in sorted(pictures.rglob("*")) if path.is_file())
    folder, added = first.parent, first.with_stem("added")
    before = folder.stat().st_mtime_ns
    shutil.copy(first, added)
    try:
        ended = done.run("--dry-run", RESULT)
    finally:
        added.unlink()
        os.utime(folder, ns=(before, before))
    data_again = {"download": 1, "shard": 2, "gather_data": 1, "measure": 2, "gather_features": 1, "reference": 1}
    assert ended.planned == {**data_again, **SCORE_AGAIN}
    assert "Measure data/pictures" in ended.text and "Measure samples/" not in ended.text


def test_a_folder_of_pictures_that_is_gone_changes_nothing(done, pictures):
    away = pictures.with_name("moved away")
    pictures.rename(away)
    try:
        assert done.run("--dry-run", RESULT).planned == {}
    finally:
        away.rename(pictures)


def test_a_harmless_edit_can_be_accepted(fork):
    with fork.source(("sample.py", "end", "\nEDITED = True\n")):
        before = {path: fork.read(path) for path in (RESULT, WEIGHTS)}
        assert fork.run("--touch", RESULT).status == 0
        assert fork.plan() == {}
        assert before == {path: fork.read(path) for path in (RESULT, WEIGHTS)}


# ----------------------------------------------------------------------------------- training and its results


def test_a_later_milestone_goes_on_and_keeps_the_earlier_ones(fork):
    before = snapshot(fork.folder / "results/runs/tiny/1")
    log = fork.read("results/runs/tiny/state/log.jsonl")
    with fork.config() as config:
        config["runs"]["tiny"]["milestones"] = [0, 1, 2]
        config.save()
        planned = fork.plan()
        ended = fork.make("results/runs/tiny/2/config.json")
        assert ended.status == 0, ended.text
        assert fork.plan("results/scores/tiny/1/short/clean.json") == {}
    assert planned == {"train": 1, "curve": 1, **SAMPLE_AGAIN}
    assert snapshot(fork.folder / "results/runs/tiny/1") == before
    assert fork.json("results/runs/tiny/2/config.json")["images_trained"] == 2000
    rest = fork.read("results/runs/tiny/state/log.jsonl").removeprefix(log)
    assert [json.loads(line)["images"] > 1000 for line in rest.splitlines()] == [True] * len(rest.splitlines()) != []


def test_another_training_setting_is_refused_before_anything_is_touched(fork):
    weights = fork.read(WEIGHTS)
    kept = {folder: snapshot(fork.folder / folder) for folder in ("results/samples", "results/scores")}
    legs = fork.read("results/runs/tiny/state/legs.json")
    with fork.config() as config:
        config["runs"]["tiny"]["training"]["learning_rate"] = 2e-3
        config.save()
        ended = fork.make(RESULT)
    assert ended.status != 0
    assert "training.learning_rate: 0.001 → 0.002" in ended.text and "Traceback" not in ended.text
    assert kept == {folder: snapshot(fork.folder / folder) for folder in kept}
    assert fork.read(WEIGHTS) == weights  # not even taken away to be brought back
    assert fork.run("--dry-run", RESULT).planned == {}
    assert fork.read("results/runs/tiny/state/legs.json") == legs  # nothing was trained


def test_training_does_not_go_on_with_other_data(fork, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "more")
    first = next(path for path in sorted((tmp_path / "more").rglob("*")) if path.is_file())
    shutil.copy(first, first.with_stem("added"))
    before = snapshot(fork.folder / "results/runs/tiny/1")
    with fork.config() as config:
        config["datasets"]["pictures"]["path"] = str(tmp_path / "more")
        config["runs"]["tiny"]["milestones"] = [0, 1, 2]
        config.save()
        ended = fork.make(RESULT)
    assert ended.status != 0
    assert re.search(r"error: .*data_sha256: \w+ → \w+", ended.text) and "Traceback" not in ended.text
    assert snapshot(fork.folder / "results/runs/tiny/1") == before


# ------------------------------------------------------------------------------------------------ interruption


def test_finished_pieces_survive_a_kill_and_the_rest_is_made(fork):
    folder, target = fork.folder / "results/samples/tiny/1/many", "results/samples/tiny/1/many/manifest.json"
    arguments = ["--cores", "1", "--rerun-incomplete", target]
    with fork.config() as config:
        config["samplers"]["many"] = {"steps": 2, "images": 32, "pieces": 4, "block": 8}
        config.save()
        said = fork.folder / "said.txt"
        with said.open("w") as file:
            process = fork.start(*arguments, stdout=file, start_new_session=True)
        while "(Rule: sample)" not in said.read_text():
            assert process.poll() is None, said.read_text()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        finished = snapshot(folder)
        pieces = [folder / name for name in finished if name.endswith(".tar") and not name.startswith(".")]
        assert 1 <= len(pieces) < 4
        assert all(files.verify(piece) for piece in pieces)  # no half-written file bears the name of a whole one

        ended = fork.run(*arguments)
        if "--unlock" in ended.text:  # Snakemake cannot tell a dead owner of its lock and says what to do
            assert ended.status != 0
            assert fork.run("--unlock").status == 0
            ended = fork.run(*arguments)
        assert ended.status == 0, ended.text
    after = snapshot(folder)
    assert {name: after[name] for name in finished if not name.startswith(".")} == {
        name: value for name, value in finished.items() if not name.startswith(".")
    }
    assert tars.read_manifest(folder)["count"] == 32
    assert [int(key) for key, _, _ in tars.read_images(folder)] == list(range(32))


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "edit, sentence",
    [
        (
            lambda config: config["samplers"]["short"].update(stepz=3),
            "has an unknown key 'stepz'; did you mean 'steps'",
        ),
        (lambda config: config["runs"]["tiny"]["training"].pop("batch"), "runs.tiny.training lacks the key 'batch'"),
        (lambda config: config["samplers"]["short"].update(steps="two"), "samplers.short.steps: 'two'"),
        (lambda config: config["runs"]["tiny"].update(dataset="picture"), "did you mean 'pictures'"),
    ],
    ids=["misspelt key", "missing key", "wrong type", "unknown data set"],
)
def test_a_mistake_in_the_config_is_one_sentence(done, edit, sentence):
    with done.config() as config:
        edit(config)
        config.save()
        ended = done.run(RESULT)
    assert ended.status != 0
    assert [line for line in ended.text.splitlines() if "error" in line.lower()] == [ended.text.splitlines()[-1]]
    assert ended.text.splitlines()[-1].startswith("error: config: ") and sentence in ended.text
    assert "Traceback" not in ended.text


@pytest.mark.parametrize(
    "target, sentence",
    [
        ("results/tinny_fid.csv", "error: there is no run 'tinny' in the config; did you mean 'tiny'?"),
        ("results/scores/tiny/1/shorty/clean.json", "error: there is no sampler 'shorty' in the config"),
        (
            "results/scores/tiny/1/ancestral/clean.json",
            "error: config: runs.tiny cannot be sampled with samplers.ancestral: its kind is 'ddpm', and",
        ),
        ("results/runs/tiny/released/ema.safetensors", "error: tiny trains its weights, none are released; ask for"),
        ("results/runs/taken/1/ema.safetensors", "error: the weights of taken are published ones, so there is nothing"),
        ("results/taken_curve.png", "error: the weights of taken are published ones, without a training curve"),
    ],
)
def test_a_target_that_cannot_be_made_is_one_sentence(done, target, sentence):
    with done.config() as config:
        config["samplers"]["ancestral"] = {"kind": "ddpm", "steps": 3, "images": 32, "pieces": 1}
        config["runs"]["taken"] = {
            "dataset": "pictures",
            "vae": "published",
            "net": {"kind": "latent", "patch_size": 2, "hidden_size": 16, "depth": 1, "num_heads": 2},
            "process": {"kind": "ddpm"},
            "weights": {"repository": "someone/something", "file": "weights.safetensors", "classes": 0},
            "sampler": "ancestral",
        }
        config["vaes"] = {"published": {}}
        config.save()
        ended, again = done.run(target), done.run(target)
    assert ended.status != 0
    assert ended.text.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in ended.text
    assert again.text.splitlines()[-1].startswith(sentence)  # and no lock stays behind


def test_a_missing_and_an_empty_folder_are_one_sentence_each_and_keep_earlier_results(fork, tmp_path):
    (tmp_path / ODD).mkdir()
    kept = {name: snapshot(fork.folder / "results" / name) for name in ("data", "runs", "samples", "scores")}
    table = fork.read(RESULT)
    with fork.config() as config:
        described = config["datasets"]["pictures"]
        config["datasets"]["empty"] = {**described, "path": str(tmp_path / ODD)}
        config["datasets"]["pictures"] = {**described, "path": "nowhere"}
        config.save()
        ended = fork.run(*SMALL_JOBS, "--keep-going", "--", RESULT, "results/data/empty/manifest.json")
    assert ended.status != 0
    assert "error: path: nowhere is no folder here; set it to the folder that holds the images" in ended.text
    assert f"error: {tmp_path / ODD} holds no images" in ended.text
    assert "Traceback" not in ended.text
    assert {name: snapshot(fork.folder / "results" / name) for name in kept} == kept
    assert fork.read(RESULT) == table


# --------------------------------------------------------------------------------------------- the real config


def test_the_papers_runs_resolve_with_the_papers_settings(sources, tmp_path):
    workflow = Workflow(sources, tmp_path)
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    ended = workflow.run("--dry-run", "--printshellcmds", "results/cifar10_fid.csv", "results/ffhq64_fid.csv")
    assert ended.planned["train"] == 2
    commands = {rule: re.findall(rf"python -m diffit.{rule} '(.*?)'", ended.text) for rule in ("train", "sample")}
    trained = {spec["dataset"]: spec for spec in map(json.loads, commands["train"])}
    assert {name: spec["training"]["batch"] for name, spec in trained.items()} == {"cifar10": 512, "ffhq64": 256}
    assert {name: spec["training"]["learning_rate"] for name, spec in trained.items()} == {
        "cifar10": 1e-3,
        "ffhq64": 2e-4,
    }
    assert {name: spec["net"]["multipliers"] for name, spec in trained.items()} == {
        "cifar10": [2, 2, 2],
        "ffhq64": [1, 2, 2, 2],
    }
    assert {(spec["steps"], spec["images"]) for spec in map(json.loads, commands["sample"])} == {
        (18, 150000),
        (40, 150000),
    }


def test_the_papers_imagenet_runs_resolve_with_the_papers_settings(sources, tmp_path):
    workflow = Workflow(sources, tmp_path)
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    results = [f"results/imagenet{size}{kind}_fid.csv" for size in (256, 512) for kind in ("", "_released")]
    ended = workflow.run("--dry-run", "--printshellcmds", *results)
    assert {rule: ended.planned[rule] for rule in ("train", "release", "vae")} == {"train": 2, "release": 2, "vae": 1}
    specs = {
        rule: [json.loads(spec) for spec in re.findall(rf"python -m diffit.{rule} '(.*?)'", ended.text)]
        for rule in ("train", "release", "sample")
    }
    assert {(s["dataset"], s["training"]["batch"], s["training"]["learning_rate"]) for s in specs["train"]} == {
        ("imagenet256", 256, 3e-4),
        ("imagenet512", 512, 1e-4),
    }
    # A half-life in images is a decay of 0.9999 a step.
    for spec in specs["train"]:
        training = spec["training"]
        assert 0.5 ** (training["batch"] / (training["ema_halflife_kimg"] * 1000)) == pytest.approx(0.9999, abs=1e-8)
    for spec in specs["train"] + specs["release"]:
        shape = {name: spec["net"][name] for name in ("patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio")}
        assert shape == {"patch_size": 2, "hidden_size": 1152, "depth": 28, "num_heads": 16, "mlp_ratio": 4}
        assert (spec["process"]["timesteps"], spec["process"]["label_dropout"]) == (1000, 0.1)
    assert {(s["weights"]["file"], s["weights"]["classes"]) for s in specs["release"]} == {
        ("diffit_256.safetensors", 1000),
        ("diffit_512.safetensors", 1000),
    }
    drawn = {(s["kind"], s["steps"], s["images"], s["labels"], s["precision"]) for s in specs["sample"]}
    assert drawn == {("ddpm", 250, 50000, "random", "tf32")}
    guided = {(s["guidance"]["kind"], s["guidance"]["weight"], s["guidance"]["channels"]) for s in specs["sample"]}
    assert guided == {("power-cosine", 4.6, 3), ("power-cosine", 4.4, 3), ("constant", 1.49, 3)}
    assert all(s["guidance"]["tolerance"] == 0 and s["decoder"] is None for s in specs["sample"])


def test_the_rules_are_clean(sources, tmp_path):
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    ended = Workflow(sources, tmp_path).run("--lint")
    assert ended.status == 0, ended.text


def test_the_weights_are_those_of_a_network_that_trained(done):
    fresh, trained = (
        load_file(done.folder / f"results/runs/tiny/state/milestones/{k}/ema.safetensors") for k in (0, 1)
    )
    assert fresh.keys() == trained.keys()
    assert any(not fresh[name].equal(trained[name]) for name in fresh)
    assert all(value.isfinite().all() for value in trained.values())
