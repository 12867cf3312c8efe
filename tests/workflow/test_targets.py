"""Mistakes on the command line of Snakemake, with real dry runs of the shipped configuration."""

import shutil

import pytest
import yaml
from helpers.places import REPOSITORY
from helpers.workflow import Workflow

from diffit.cli import Parser, UserError
from diffit.config.targets import known_targets, refuse_unknown
from diffit.planning.goals import add_goal_arguments, planned_workflow

MINE = """
datasets:
  mine: {source: folder, path: /nowhere/pictures, resolution: 32, shards: 4}
runs:
  mine: {base: digits, dataset: mine, net: {window: 4}}
"""


@pytest.fixture(scope="module")
def workflow(sources, tmp_path_factory) -> Workflow:
    folder = tmp_path_factory.mktemp("targets")
    shutil.copy(REPOSITORY / "config.yaml", folder)
    (folder / "mine.yaml").write_text(MINE)
    (folder / "twice.yaml").write_text("runs: {digits: {seed: 1}}\nruns: {digits: {seed: 2}}\n")
    return Workflow(sources, folder)


@pytest.fixture
def small(workflow, tmp_path) -> Workflow:
    """The digits and the user's own pictures only."""
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    mine = yaml.safe_load(MINE)
    kept = {
        "presets": [],
        "datasets": {"digits": config["datasets"]["digits"], **mine["datasets"]},
        "samplers": {"heun18-demo": config["samplers"]["heun18-demo"]},
        "runs": {"digits": config["runs"]["digits"], **mine["runs"]},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(kept))
    return Workflow(workflow.sources, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("results/imagenet256.csv", "no rule makes results/imagenet256.csv; did you mean results/imagenet256_fid.csv?"),
        ("results/tables/table10.csv", "there is no table 'table10'; did you mean 'table1'?"),
        ("--forcerun scroe -- results/digits_fid.csv", "no rule makes scroe; did you mean score?"),
        (
            "results/mine_fid.csv --configfile mine.yaml",
            "datasets.mine.path: '/nowhere/pictures' does not exist or is not a directory; set it to",
        ),
        ("results/digits_fid.csv --configfile twice.yaml", "line 2: the key 'runs' is also in line 1; remove one"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(workflow, arguments, sentence):
    ended = workflow.run("--dry-run", *arguments.split())
    last = ended.text.splitlines()[-1]
    assert ended.status == 1 and last.startswith("error: ") and sentence in last, ended.text
    assert "Traceback" not in ended.text and "Exception" not in ended.text


def test_pictures_that_no_goal_needs_may_be_missing(small):
    ended = small.run("--dry-run", "results/digits_fid.csv")
    assert ended.planned["tabulate"] == 1 and "warning" not in ended.text


def test_a_dry_run_of_everything_lists_missing_pictures_and_ends_well(small):
    ended = small.run("--dry-run", "all")
    assert ended.planned["tabulate"] == 2
    warnings = [line for line in ended.text.splitlines() if line.startswith("warning: ")]
    assert [line.split(":")[1] for line in warnings] == [" datasets.mine.path"]


def test_a_run_without_its_pictures_ends_before_the_first_job(small):
    ended = small.run("all")
    assert ended.status == 1 and ended.text.splitlines()[-1].startswith("error: datasets.mine.path: ")
    assert not (small.folder / "results/archives").exists()


RUNS = {
    "cifar10": {"milestones": [0, 5], "sampler": "few", "protocols": ["clean"]},
    "taken": {"weights": {}, "sampler": "few", "protocols": ["adm"]},
}
KNOWN = known_targets({"runs": RUNS, "datasets": {"digits": {}}, "vaes": {"small": {}}}, ["table1"], ["figure2"])


@pytest.mark.parametrize(
    ("target", "way_out"),
    [
        ("results/cifar10.csv", "did you mean results/cifar10_fid.csv?"),
        ("results/cifar10_fid.cvs", "did you mean results/cifar10_fid.csv?"),
        ("cifar10_fid.csv", "did you mean results/cifar10_fid.csv?"),
        ("cifar10", "did you mean results/cifar10_fid.csv?"),
        ("result/tables/table1.csv", "did you mean results/tables/table1.csv?"),
        ("results/figure2.png", "did you mean results/figures/figure2.png?"),
        ("tabels", "did you mean tables?"),
        ("results/samples/cifar10/5/few", "did you mean results/samples/cifar10/5/few/manifest.json?"),
        ("results/runs/taken/", "did you mean results/runs/taken/released/ema.safetensors?"),
        ("results/scores/taken/released/few/adm.csv", "did you mean results/scores/taken/released/few/adm.json?"),
        ("results/vaes/smal/vae.json", "did you mean results/vaes/small/vae.json?"),
        ("nonsense", "ask for a result such as results/taken_fid.csv"),
        ("", "ask for a result such as results/taken_fid.csv"),
    ],
)
def test_the_nearest_target_is_suggested(target, way_out):
    with pytest.raises(UserError) as refused:
        refuse_unknown(target, KNOWN, ["all", "tables", "score"], list(RUNS))
    assert str(refused.value) == f"no rule makes {target or 'an empty name'}; {way_out}"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--configfile", "missing does not exist; correct the name of the configuration file"),
        ("--directory", "--directory: missing is not a folder; name the folder of results/"),
        ("--snakefile", "--snakefile: missing does not exist; name the workflow's Snakefile"),
    ],
)
def test_a_plan_with_a_missing_file_is_one_sentence(option, sentence):
    parser = Parser("A plan.")
    add_goal_arguments(parser, "profiles/local")
    with pytest.raises(UserError, match=sentence):
        planned_workflow(parser.parse_args([option, "missing"]))
