"""The workflow itself, run for real on tiny data in a copy: what it makes, and what an edit makes it do again."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.places import REPOSITORY
from helpers.workflow import (
    IMAGES,
    ODD,
    RESULT,
    SAMPLE_AGAIN,
    SCORE_AGAIN,
    SIZE,
    SMALL_JOBS,
    WEIGHTS,
    Workflow,
)
from PIL import Image
from safetensors.torch import load_file

from diffit.store import files
from diffit.store.manifest import read_images, read_manifest


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


def test_every_stage_leaves_sealed_shards_and_a_manifest(done):
    results = done.folder / "results"
    for folder, count, ending in [
        ("data/pictures", IMAGES, "tar"),
        ("data/pictures/features/clean", IMAGES, "npz"),
        ("samples/tiny/1/short", 16, "tar"),
        ("samples/tiny/1/short/features/clean", 16, "npz"),
    ]:
        manifest = read_manifest(results / folder)
        assert manifest["count"] == count
        assert [shard["file"] for shard in manifest["shards"]] == [f"{k}-of-2.{ending}" for k in range(2)]
        for shard in manifest["shards"]:
            assert files.verify(results / folder / shard["file"])["sha256"] == shard["sha256"]
    samples = list(read_images(results / "samples/tiny/1/short"))
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
    with done.source(("weights/vae.py", "end", "\nEDITED = True\n")):
        assert done.plan() == {}


def test_an_edit_of_the_reader_of_another_data_source_reruns_nothing(done):
    names = ("imagenet", "imagenet_parquet", "cifar10", "digits", "adm_batch")
    with done.source(*((f"data/{name}.py", "end", "\nEDITED = True\n") for name in names)):
        assert done.plan() == {}


def test_an_edit_of_the_reader_of_its_data_source_makes_the_data_again(done):
    with done.source(("data/folder.py", "end", "\nEDITED = True\n")):
        assert {"download", "shard"} <= done.plan().keys()


def test_an_edit_of_figures_tables_plans_or_preflight_reruns_no_stage(done):
    names = ("paper/table.py", "paper/plot.py", "paper/summary.py", "planning/plan.py", "planning/preflight.py")
    with done.source(*((name, "end", "\nEDITED = True\n") for name in names)):
        assert done.plan() == {}
    with done.source(("paper/training_curve.py", "end", "\nEDITED = True\n")):
        assert done.plan() == {"curve": 1, "tabulate": 1}


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
    with done.source(
        ("store/tars.py", "end", "\nEDITED = True\n"), ("training/trainer.py", "end", "\nEDITED = True\n")
    ):
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


def test_finished_shards_survive_a_kill_and_the_rest_is_made(fork):
    folder, target = fork.folder / "results/samples/tiny/1/many", "results/samples/tiny/1/many/manifest.json"
    arguments = ["--cores", "1", "--rerun-incomplete", target]
    with fork.config() as config:
        config["samplers"]["many"] = {"steps": 2, "images": 32, "shards": 4, "block": 8}
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
        shards = [folder / name for name in finished if name.endswith(".tar") and not name.startswith(".")]
        assert 1 <= len(shards) < 4
        assert all(files.verify(shard) for shard in shards)  # no half-written file bears the name of a whole one

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
    assert read_manifest(folder)["count"] == 32
    assert [int(key) for key, _, _ in read_images(folder)] == list(range(32))


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "edit, sentence",
    [
        (
            lambda config: config["samplers"]["short"].update(stepz=3),
            "has an unknown key 'stepz'; did you mean 'steps'",
        ),
        (lambda config: config["runs"]["tiny"]["training"].pop("batch"), "runs.tiny.training lacks the key 'batch'"),
        (lambda config: config["samplers"]["short"].update(steps="two"), "samplers.short.steps is 'two'"),
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
    assert [line for line in ended.text.splitlines() if "error:" in line.lower()] == [ended.text.splitlines()[-1]]
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
        ("results/runs/tiny/released/ema.safetensors", "error: tiny is trained, so no weights are released; ask for"),
        ("results/runs/taken/1/ema.safetensors", "error: the weights of taken are published, so it cannot be trained"),
        ("results/taken_curve.png", "error: the weights of taken are published, without a training curve"),
    ],
)
def test_a_target_that_cannot_be_made_is_one_sentence(done, target, sentence):
    with done.config() as config:
        config["samplers"]["ancestral"] = {"kind": "ddpm", "steps": 3, "images": 32, "shards": 1}
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
        config.save()
        empty = fork.make("results/data/empty/manifest.json")
        config["datasets"]["pictures"] = {**described, "path": "nowhere"}
        config.save()
        missing = fork.make(RESULT)
    assert missing.status != 0 and empty.status != 0
    assert missing.text.splitlines()[-1].startswith("error: datasets.pictures.path: 'nowhere' does not exist or is not")
    assert f"error: {tmp_path / ODD} holds no images" in empty.text
    assert "Traceback" not in empty.text + missing.text
    assert {name: snapshot(fork.folder / "results" / name) for name in kept} == kept
    assert fork.read(RESULT) == table


# --------------------------------------------------------------------------------------------- the real config


def commands_of(rule: str, text: str) -> list[str]:
    """The descriptions that a rule's commands get, of all its commands in the text of a dry run."""
    return re.findall(rf"python -m diffit\.(?:[a-z]+\.)?{rule} '(.*?)'", text)


def test_the_papers_runs_resolve_with_the_papers_settings(sources, tmp_path):
    workflow = Workflow(sources, tmp_path)
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    (tmp_path / "data/ffhq").mkdir(parents=True)
    ended = workflow.run("--dry-run", "--printshellcmds", "results/cifar10_fid.csv", "results/ffhq64_fid.csv")
    assert ended.planned["train"] == 2
    commands = {rule: commands_of(rule, ended.text) for rule in ("train", "sample")}
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
        rule: [json.loads(spec) for spec in commands_of(rule, ended.text)] for rule in ("train", "release", "sample")
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
