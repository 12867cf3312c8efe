"""Plans: published FLOPs, bytes of real files, jobs of the real workflow."""

import copy
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.places import REPOSITORY

from diffit import nets
from diffit.cli import UserError
from diffit.config.toy_runs import complete
from diffit.data import images
from diffit.data.imagenet_classes import IMAGES as IMAGENET
from diffit.nets.inspect import flops, size
from diffit.planning import dry_run
from diffit.planning.costs import PNG_BYTES_PER_PIXEL, Cost, Costs, Gpu, autoencoder, inception, tar_bytes
from diffit.planning.dry_run import Job
from diffit.planning.formats import format_gpu_hours
from diffit.planning.plan import disk, stages, table
from diffit.process import samplers
from diffit.process.ddpm import DDPM
from diffit.process.samplers import passes
from diffit.runs import checkpoints
from diffit.store import files, tars
from diffit.store.members import encode_npy

SNAKEFILE, PROFILE = REPOSITORY / "Snakefile", REPOSITORY / "profiles/local"
GIGA = 1e9
CONFIGURATION_AND_DOCS = [
    file
    for pattern in ("*.yaml", "*.md", "docs/**/*.md", "workflow/**/*.*", "profiles/**/*.yaml")
    for file in REPOSITORY.glob(pattern)
]
FULL_SPEED = Gpu(312e12, training=1, inference=1)


@pytest.fixture(scope="session")
def real_config() -> dict:
    return complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)


@pytest.fixture
def costs(real_config, tmp_path):
    """Costs under the repository's configuration, with the number of images in ImageNet."""
    counts = {"imagenet256": IMAGENET, "imagenet512": IMAGENET}
    return lambda counts=counts: Costs(copy.deepcopy(real_config), tmp_path, Gpu(), counts)


def plan(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "diffit.planning.plan", "-s", str(SNAKEFILE), "-d", str(folder)]
    return subprocess.run(
        [*command, "--profile", str(PROFILE), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each stage in a printed plan."""
    lines = [line.split("  ") for line in text.partition("\n\n")[0].splitlines()]
    return {cells[0]: [cell.strip() for cell in cells[1:] if cell.strip()] for cells in lines}


def in_shards(rule: str, shards: int, **wildcards: str) -> list[Job]:
    return [Job(rule, {**wildcards, "shard": str(k), "shards": str(shards)}) for k in range(shards)]


def hours(parts: list[Cost]) -> float:
    return sum(part.gpu_hours for part in parts)


# ---------------------------------------------------------------------------------------------------------- FLOPs


@pytest.mark.parametrize(("side", "multiply_adds"), [(32, 118.5), (64, 524.4)])
def test_the_latent_network_computes_as_much_as_published(side, multiply_adds):
    spec = {
        "kind": "latent", "input_size": side, "channels": 4, "patch_size": 2, "hidden_size": 1152, "depth": 28,
        "num_heads": 16, "mlp_ratio": 4, "num_classes": 1000,
    }  # fmt: skip
    counted = size(spec)
    assert counted.flops / 2 / GIGA == pytest.approx(multiply_adds, abs=0.06)
    attention = 28 * 2 * (side // 2) ** 4 * 1152  # multiply-adds of Q K^T and of its product with V
    assert (counted.flops - counted.linear_flops) / 2 == attention
    if side == 32:
        assert counted.linear_flops / 2 / GIGA == pytest.approx(114.3, abs=0.06)
        table_of_positions = (side // 2) ** 2 * 1152
        assert counted.parameters + table_of_positions == 561_330_144


def test_an_image_space_network_counts_without_memory_as_it_does_with_it(tiny_run):
    spec = {**tiny_run["net"], "resolution": 8, "channels": 3, "augment_labels": 0}
    net = nets.build(spec)
    real = flops(lambda: net(torch.zeros(1, 3, 8, 8), torch.zeros(1))).total()
    assert (size(spec).flops, size(spec).parameters) == (real, sum(p.numel() for p in net.parameters()))


def test_inception_and_the_published_vae_compute_as_much_as_published():
    assert inception() / 2 / GIGA == pytest.approx(5.7, rel=0.01)
    shape = files.canonical({"latent_channels": 4, "channels": [128, 256, 512, 512], "layers": 2, "groups": 32})
    encoding, decoding = autoencoder(shape, 256)
    assert autoencoder(shape, 512) == (pytest.approx(4 * encoding, rel=0.05), pytest.approx(4 * decoding, rel=0.05))


def test_comments_on_runs_state_the_gpu_hours_that_a_plan_prints(costs, real_config):
    stated = stated_gpu_hours()
    assert len(stated) == sum(file.read_text().count("A100-hours") for file in CONFIGURATION_AND_DOCS)
    assert {run for run, _stage, _hours in stated} >= {"cifar10", "ffhq64", "imagenet256", "imagenet512"}
    for run, stage, printed in stated:
        if stage == "Training":
            parts = costs().train([{"run": run, "kimg": str(real_config["runs"][run]["milestones"][-1])}])
        else:
            sampler = real_config["runs"][run]["sampler"]
            parts = costs().of("sample", in_shards("sample", 1, run=run, kimg="released", sampler=sampler))
        assert format_gpu_hours(hours(parts)) == printed, run


def stated_gpu_hours() -> list[tuple[str, str, str]]:
    """Run, stage and hours of each ``Training: 1,234 A100-hours`` in a comment above a run."""
    found = []
    for file in sorted((REPOSITORY / "workflow/runs").glob("*.yaml")):
        for comment, run in re.findall(r"((?:^  #.*\n)+)  (\w+):", file.read_text(), re.MULTILINE):
            for stage, printed in re.findall(r"(Training|Sampling): ([\d,.]+) A100-hours", comment):
                found.append((run, stage, printed))
    return found


@pytest.mark.parametrize(("run", "expected"), [("imagenet256", 5.3), ("imagenet512", 23.4)])
def test_guided_sampling_costs_the_gpu_hours_that_the_design_states(costs, real_config, run, expected):
    described = real_config["runs"][run]
    sampler = real_config["samplers"][described["sampler"]]
    forward = size(costs().net(described)).flops
    work = sampler["images"] * passes(described["process"], sampler) * forward
    assert FULL_SPEED.hours(work, "bfloat16", FULL_SPEED.inference) == pytest.approx(expected, rel=0.05)


def test_shards_together_cost_what_one_job_costs(costs, real_config):
    sampler = real_config["runs"]["imagenet256"]["sampler"]
    whole, parts = (
        costs().of("sample", in_shards("sample", shards, run="imagenet256", kimg="1792000", sampler=sampler))
        for shards in (1, 128)
    )
    assert sum(part.images for part in parts) == whole[0].images == 50_000
    assert hours(parts) == pytest.approx(whole[0].gpu_hours)


def test_a_sampler_of_lower_precision_is_faster(costs):
    jobs, costs, needed = in_shards("sample", 1, run="digits", kimg="64", sampler="heun18-demo"), costs(), {}
    for precision in ("float32", "tf32"):
        costs.config["samplers"]["heun18-demo"]["precision"] = precision
        needed[precision] = hours(costs.of("sample", jobs))
    assert needed["float32"] == pytest.approx(8 * needed["tf32"])


def test_heun_evaluates_the_network_twice_per_step_and_once_in_the_last():
    assert passes({"kind": "edm"}, {"kind": "heun", "steps": 18}) == 35


@pytest.mark.parametrize(
    "guidance",
    [
        {"kind": "none"},
        {"kind": "constant", "weight": 1.5, "channels": 3, "tolerance": 0},
        {"kind": "power-cosine", "weight": 4.6, "power": 4, "channels": 3, "tolerance": 1e-3},
    ],
)
def test_guided_steps_are_counted_as_the_sampler_evaluates_them(guidance):
    sampler, seen = {"kind": "ddpm", "steps": 250, "guidance": guidance}, []

    def denoiser(x, t, labels, hidden=None):
        seen.append(len(x))
        return torch.cat([x, x], dim=1)

    denoiser.num_classes, denoiser.channels = 10, 4
    task = DDPM(timesteps=1000, label_dropout=0.1)
    noise = torch.zeros(1, 4, 2, 2)
    samplers.build(task, sampler)(
        task.guided(denoiser, torch.zeros(1, dtype=torch.int64), sampler), noise, lambda: noise
    )
    assert passes({"kind": "ddpm", "timesteps": 1000}, sampler) == sum(seen)


def test_a_training_with_checkpoints_costs_what_is_left_of_it(costs, real_config, tmp_path):
    fresh = costs().train([{"run": "digits", "kimg": "64"}])
    checkpoints.Checkpoints(tmp_path / "results/runs/digits/state").save(32_000, {})
    rest = costs().train([{"run": "digits", "kimg": "64"}])
    assert (fresh[0].images, rest[0].images) == (64_000, 32_000)
    assert rest[0].bytes < fresh[0].bytes


# ----------------------------------------------------------------------------------------------------------- disk


@pytest.mark.parametrize("count", [1, 20, 333])
def test_tars_of_samples_and_latents_have_the_predicted_bytes(tmp_path, count):
    for i, array in enumerate([np.zeros((32, 32, 3), np.uint8), np.zeros((2, 2, 4, 8, 8), np.float16)]):
        samples = ((f"{k:08d}", {"npy": encode_npy(array), "cls": b"7"}) for k in range(count))
        record = tars.write_tar(tmp_path / f"{i}-of-2.tar", samples)
        assert record["bytes"] == tar_bytes(count, 128 + array.nbytes, 1)


def test_a_run_takes_its_checkpoints_and_its_milestones(costs, training):
    """Sixteen bytes a parameter in a real checkpoint, but for names and settings; four in a milestone."""
    run = training()
    assert run.run(1).status == 0
    stored = run.checkpoints()[-1].stat().st_size
    with (run.folder / "state/run.json").open() as file:
        net = json.load(file)["net"]
    assert stored == pytest.approx(16 * size(net).parameters, rel=0.35)  # small tensors have large names
    digits, _cache = costs().train([{"run": "digits", "kimg": "64"}])
    parameters = size(costs().net(costs().config["runs"]["digits"])).parameters
    assert digits.bytes == 4 * parameters * (3 * 4 + 2)  # milestones 0 and 64


def test_photographs_take_the_assumed_bytes_per_pixel(shared_data):
    paths = sorted((shared_data / "imagenet_sample").rglob("*.JPEG"))
    sizes = [len(images.png(images.center_crop(images.decode(path, str(path)), 256))) for path in paths[::5]]
    assert sum(sizes) / len(sizes) / 256**2 == pytest.approx(PNG_BYTES_PER_PIXEL, rel=0.1)


def test_a_plan_that_does_not_fit_on_the_disk_is_warned_of(costs, tmp_path):
    jobs = in_shards("shard", 1, dataset="imagenet256")
    costs = costs()
    costs.config["datasets"]["imagenet256"]["resolution"] *= 1000
    planned_stages = stages(jobs, costs)
    assert disk(planned_stages, tmp_path / "results").startswith("warning: the plan does not fit")
    assert disk([], tmp_path / "results").startswith("Free disk space")


# ------------------------------------------------------------------------------------------------------ what is unknown


def test_a_folder_of_unknown_size_is_unknown_until_it_is_listed(costs, tmp_path):
    jobs = in_shards("encode", 4, dataset="ffhq64", vae="sd-vae-ft-ema")
    unknown = costs(counts={})
    assert all(math.isnan(part.gpu_hours) for part in unknown.of("encode", jobs))
    assert unknown.unknown == {"ffhq64"}
    assert "unknown" in table(stages(jobs, unknown), 8, 8)
    files.write_json(tmp_path / "results/archives/ffhq64/archive.json", {"source": "folder", "count": 10})
    assert [part.images for part in costs(counts={}).of("encode", jobs)] == [2, 3, 2, 3]


def test_rules_without_a_cost_model_are_listed_with_their_jobs(costs):
    printed = table(stages([Job("juggle", {"ball": str(k)}) for k in range(3)], costs()), 8, 8)
    assert rows(printed)["juggle"] == ["3", "–", "–", "–", "not estimated"]


def test_a_count_for_an_undefined_data_set_is_refused(costs):
    with pytest.raises(UserError, match="did you mean 'imagenet256'"):
        costs(counts={"imagenet_256": 3})


# --------------------------------------------------------------------------------------------------- the real workflow


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "config.yaml").write_text((REPOSITORY / "config.yaml").read_text())
    return tmp_path


def test_the_papers_run_is_planned_from_the_dry_run_of_all_its_jobs(folder):
    ended = plan(folder, "results/imagenet256_fid.csv", "--images", f"imagenet256={IMAGENET}", "--gpus", "16")
    assert ended.returncode == 0, ended.stderr
    found = rows(ended.stdout)
    assert found["shard"][:2] == ["264", "1,291,167"]  # ImageNet, and ADM's batch of 10,000 in 8 shards
    # Samples under two protocols, ImageNet under one, ADM's batch under the other.
    assert found["measure"][:2] == ["328", f"{2 * 50_000 + IMAGENET + 10_000:,}"]
    assert found["sample"][:2] == ["32", "50,000"]
    assert found["train"][:3] == ["1", "1,792,000,000", "2,836"]
    assert found["train"][-1] == "7 d 9 h"
    assert "unknown" not in ended.stdout
    assert not (folder / "results").exists()


def planned(folder: Path, *goals: str, profile: Path = PROFILE, more: tuple[str, ...] = ()) -> dry_run.Workflow:
    options = ["--snakefile", str(SNAKEFILE), "--directory", str(folder), "--profile", str(profile), *more]
    return dry_run.dry_run(goals, options)


def test_finished_jobs_are_not_in_the_plan(folder):
    archive, data = "results/archives/digits/archive.json", "results/data/digits/manifest.json"
    make = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE), "-d", str(folder), "--cores", "1", archive]
    subprocess.run(make, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert [job.rule for job in planned(folder, data).jobs] == ["shard", "shard", "gather_data"]
    ended = plan(folder, archive)
    assert (ended.returncode, ended.stdout) == (0, "Nothing to be done: everything asked for exists.\n")


def test_configfiles_change_the_plan_as_they_change_the_workflow(folder):
    file = folder / "more.yaml"
    file.write_text("samplers: {heun18-demo: {images: 1000, shards: 4}}\n")
    workflow = planned(folder, "results/digits_fid.csv", more=("--configfile", str(file)))
    assert [job.wildcards["shards"] for job in workflow.jobs if job.rule == "sample"] == ["4"] * 8
    sampler = workflow.config["samplers"]["heun18-demo"]
    assert (sampler["images"], sampler["steps"]) == (1000, 18)


def test_a_local_configuration_changes_the_plan_below_the_files_that_are_named(folder):
    (folder / "config.local.yaml").write_text("samplers: {heun18-demo: {images: 1000, shards: 4}}\n")
    (folder / "more.yaml").write_text("samplers: {heun18-demo: {shards: 2}}\n")
    workflow = planned(folder, "results/digits_fid.csv", more=("--configfile", str(folder / "more.yaml")))
    sampler = workflow.config["samplers"]["heun18-demo"]
    assert (sampler["images"], sampler["shards"], sampler["steps"]) == (1000, 2, 18)


def test_a_profile_that_changes_the_configuration_is_refused(folder):
    profile = folder / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text('cores: 1\nconfig: ["inception={path: here}"]\n')
    with pytest.raises(UserError, match=r"the profile changes the configuration in .*; write its values into a file"):
        planned(folder, "results/digits_fid.csv", profile=profile)


def test_a_goal_that_no_rule_makes_is_one_sentence(folder):
    ended = plan(folder, "nonsense")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert re.fullmatch(r"error: no rule makes nonsense; ask for a result such as results/\w+_fid\.csv\n", ended.stderr)


def test_an_undefined_run_is_reported_with_the_nearest_name(folder):
    with pytest.raises(UserError, match=r"^there is no run 'digit' in the config; did you mean 'digits'"):
        planned(folder, "results/digit_fid.csv")
