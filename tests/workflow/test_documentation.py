"""The commands of README.md and docs/ work as printed.

tests/helpers/documentation.py says what is done with each command; tests/slurm/test_documentation.py runs those that
need a cluster.
"""

import copy
import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import documentation
from helpers.documentation import (
    DRY_RUN,
    DRY_RUN_LATER,
    EXISTS,
    HELP,
    OWN_IMAGES,
    RUN,
    RUN_LATER,
    TINY,
    Clone,
    filled,
    own_example,
    own_result,
    those,
)
from helpers.workflow import write_pictures
from PIL import Image

GOAL = "results/digits_fid.csv"
INSTALLED = Path(documentation.REPOSITORY / ".venv/.installed")
needs_make = pytest.mark.skipif(not INSTALLED.exists(), reason="make install has not made .venv")


def later(*texts: str) -> list:
    """Slow tests, of which continuous integration runs the first."""
    marks = [[pytest.mark.slow], *([pytest.mark.slow, pytest.mark.extended] for _ in texts[1:])]
    return [pytest.param(text, marks=each) for text, each in zip(texts, marks, strict=False)]


# ------------------------------------------------------------------------------------------------- the extraction


def test_every_command_is_run_or_listed():
    assert len(documentation.commands()) > 20
    assert not list(filter(None, map(documentation.unknown, documentation.commands())))


def test_a_new_command_is_reported_with_its_place():
    prose, block = "# Title\n\nRun `make foo`, or\n\n", "```\nmake bar BAZ=1  # note\nresult 1\n```\n\n"
    text = prose + block + "```sh\nmystery \\\n  --now\n```\n"
    found = list(documentation.commands_of("README.md", text))
    assert [(command.line, command.text) for command in sorted(found, key=lambda one: one.line)] == [
        (3, "make foo"),
        (6, "make bar BAZ=1"),
        (11, "mystery --now"),
    ]
    assert "README.md:3: `make foo` is neither run nor listed" in documentation.unknown(
        next(command for command in found if command.line == 3)
    )


def test_output_settings_and_prose_are_no_commands():
    text = "Use `make`, `precision` and\n\n```yaml\nmake: {it: so}\n```\n\n```\nmake plan GOAL=x\n\nstage  jobs\n```\n"
    assert [command.text for command in documentation.commands_of("a.md", text)] == ["make plan GOAL=x"]


# ------------------------------------------------------------------------------------- plans, dry runs and targets


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    """A clone with nothing made, the configuration as it is, and what the documents ask the user to provide."""
    clone = documentation.clone(tmp_path_factory.mktemp("documented") / "clone")
    write_pictures(clone.folder / "pictures")
    (clone.folder / "data/ffhq").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(clone.folder / "data/ffhq/0.png")
    write_own_example(clone)
    return clone


def write_own_example(clone: Clone, short: bool = False) -> None:
    """The documented example, with the folder's real place, in the files that the documented commands name.

    A ``short`` one trains on 1,000 images and samples 16.
    """
    example = copy.deepcopy(own_example())
    (run,) = example["runs"].values()
    if short:
        run["milestones"] = [1]
        for sampler in example.get("samplers", {}).values():
            sampler["images"] = 16
    (data,) = [one for one in example["datasets"].values() if OWN_IMAGES in str(one)]
    example["datasets"] = {run["dataset"]: {**data, "path": str(clone.folder / "pictures")}}
    texts = [command.text for command in documentation.commands()]
    for file in {match for text in texts for match in re.findall(r"(?:--configfile |CONFIG=)(\S+\.yaml)", text)}:
        clone.write(file, example)
    if not any("--configfile" in text for text in texts):
        clone.write("config.local.yaml", example)


def succeeded(ended) -> str:
    assert ended.returncode == 0, ended.stdout
    assert "Traceback" not in ended.stdout, ended.stdout
    return ended.stdout


@needs_make
@pytest.mark.parametrize("text", [*those(RUN), *later(*those(RUN_LATER))])
def test_commands_that_change_nothing_run_as_printed(clone, text):
    said = succeeded(clone.run(filled(text, GOAL)))
    if text.startswith("make plan"):
        assert "total" in said and "Wall time" in said
    assert {path.name for path in clone.folder.glob("results/*")} == {"README.md"}


@pytest.mark.parametrize("text", [*those(DRY_RUN), *later(*those(DRY_RUN_LATER)), own_result()])
def test_commands_that_compute_for_long_can_be_planned(clone, text):
    if text == own_result():
        text = next(one for one in those(TINY) if own_result() in one)
    if text.startswith("make"):
        recipe = succeeded(clone.run(f"make -n {text.removeprefix('make ')}"))
        text = next(line for line in recipe.splitlines() if line.startswith(".venv/bin/snakemake"))
    command = filled(text, GOAL)
    assert "--profile" in command or "--cores" in command, "it would end with the question for a profile"
    said = succeeded(clone.run(command.replace("snakemake ", "snakemake --dry-run ", 1)))
    assert "This was a dry-run" in said


@needs_make
@pytest.mark.parametrize("text", those(EXISTS))
def test_targets_and_modules_that_a_test_cannot_run_exist(clone, text):
    if module := re.search(r"-m (\S+)", text):
        assert (clone.folder / module[1].replace(".", "/")).with_suffix(".py").is_file()
        return
    succeeded(clone.run(f"make --dry-run {text.removeprefix('make ')}"))


@pytest.mark.parametrize("text", those(HELP))
def test_modules_that_a_test_cannot_run_explain_themselves(clone, text):
    module = re.search(r"-m (\S+)", text)[1]
    assert "usage: " in succeeded(clone.run(f".venv/bin/python -m {module} --help"))


# ----------------------------------------------------------------------------------------------------- tiny data


@pytest.fixture(scope="module")
def tiny(inception, tmp_path_factory) -> Clone:
    """A clone in which the documented example with the user's own images ran as printed, with a short training."""
    tiny = documentation.clone(tmp_path_factory.mktemp("tiny") / "clone")
    write_pictures(tiny.folder / "pictures")
    write_own_example(tiny, short=True)
    config = tiny.config()
    config["samplers"]["heun18-demo"] |= {"images": 16, "steps": 2}
    config["runs"]["digits"] |= {"milestones": [0, 1]}
    tiny.write("config.yaml", {**config, "inception": {"path": str(inception / "inception.pt")}})
    (text,) = [one for one in those(TINY) if own_result() in one and "snakemake" in one]
    said = succeeded(tiny.run(text))
    assert "squeue" not in said and "sacct" not in said and "Reason:" not in said
    return tiny


@pytest.mark.slow
def test_the_example_with_ones_own_images_makes_its_table(tiny):
    rows = {row["metric"]: row["value"] for row in csv.DictReader((tiny.folder / own_result()).open())}
    assert float(rows["fid"]) > 0
    log = next((tiny.folder / "logs/download").glob("*.log")).parent
    assert any("are not used as classes; set labels: true" in path.read_text() for path in log.glob("*.log"))


def is_report(text: str) -> bool:
    return text.startswith(("make report", "make accept"))


@needs_make
@pytest.mark.slow
@pytest.mark.parametrize("text", [one for one in those(TINY) if is_report(one)])
def test_reports_and_accepted_edits_know_ones_own_runs_and_skip_unknown_results(tiny, text):
    stranger = tiny.folder / "results/stranger_fid.csv"
    stranger.write_text("metric,value\n")
    goal = own_result()
    configured = [path.name for path in tiny.folder.glob("*.yaml") if path.name not in ("config.yaml",)]
    command = filled(text, goal)
    if "CONFIG=" not in command and "config.local.yaml" not in configured:
        command += f" CONFIG={configured[0]}"
    said = succeeded(tiny.run(command))
    if "GOAL=" not in text:
        assert re.search(r"note: no configured run.* makes results/stranger_fid.csv; left out", said)
    if "report" in text:
        assert (tiny.folder / "results/report.html").stat().st_size > 10_000
    stranger.unlink()


@needs_make
@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize("text", [one for one in those(TINY) if one.startswith("make demo")])
def test_the_demo_ends_with_a_table_and_the_places_of_its_pictures(tiny, text):
    said = succeeded(tiny.run(text))
    assert "fid" in said
    assert all((tiny.folder / path).is_file() for path in re.findall(r"results/\S+\.(?:png|csv)", said))


@pytest.mark.slow
@pytest.mark.parametrize("text", [one for one in those(TINY) if "diffit.score" in one or "tensorboard" in one])
def test_tools_for_ones_own_files_run_as_printed(tiny, text):
    pictures = sorted((tiny.folder / "pictures").rglob("*.*"))
    for name, chosen in (("SAMPLES", pictures[:4]), ("REAL", pictures[4:10])):
        (tiny.folder / name).mkdir(exist_ok=True)
        for number, path in enumerate(chosen):
            Image.open(path).save(tiny.folder / name / f"{number}.png")
    for name in re.findall(r"\S+\.npz", text):
        write_batch(tiny.folder / name, pictures[:6])
    said = succeeded(tiny.run(f"{text} --inspect" if "tensorboard" in text else text))
    assert "event" in said or "protocol" in said or (tiny.folder / shlex.split(text)[-1]).is_file(), said


def write_batch(path: Path, pictures: list[Path]) -> None:
    """Images in the form of ADM's files, with statistics at random."""
    rng = np.random.default_rng(0)
    images = np.stack([np.asarray(Image.open(picture).convert("RGB")) for picture in pictures])
    spatial = rng.standard_normal((2100, 2023))
    features = rng.standard_normal((2100, 2048))
    np.savez(
        path, arr_0=images, mu=features.mean(axis=0), sigma=np.cov(features.T), mu_s=spatial.mean(axis=0),
        sigma_s=np.cov(spatial.T),
    )  # fmt: skip
