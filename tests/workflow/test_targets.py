"""Mistakes on the command line of Snakemake, with real dry runs of the shipped configuration."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers.places import REPOSITORY
from helpers.workflow import Workflow

from diffit.cli import UserError
from diffit.config.targets import known_targets, refuse_unknown

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
    (folder / "empty.yaml").write_text("runs:\n")
    return Workflow(sources, folder)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("results/imagenet256.csv", "no rule makes results/imagenet256.csv; did you mean results/imagenet256_fid.csv?"),
        ("results/cifar_fid.csv", "there is no run 'cifar' in the config; did you mean 'cifar10'?"),
        ("results/tables/table10.csv", "there is no table 'table10'; did you mean 'table1'?"),
        ("--forcerun scroe -- results/digits_fid.csv", "no rule makes scroe; did you mean score?"),
        (
            "results/mine_fid.csv --configfile mine.yaml",
            "datasets.mine.path: '/nowhere/pictures' does not exist or is not a directory; set it to the folder of your",
        ),
        ("results/digits_fid.csv --configfile twice.yaml", "line 2: the key 'runs' is also in line 1; remove one"),
        ("results/digits_fid.csv --configfile empty.yaml", "config: runs is empty, but must be a mapping of keys"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(workflow, arguments, sentence):
    ended = workflow.run("--dry-run", *arguments.split())
    last = ended.text.splitlines()[-1]
    assert ended.status == 1 and last.startswith("error: ") and sentence in last, ended.text
    assert "Traceback" not in ended.text and "Exception" not in ended.text


def test_pictures_that_no_goal_needs_may_be_missing(workflow):
    ended = workflow.run("--dry-run", "results/digits_fid.csv", "--configfile", "mine.yaml")
    assert ended.planned["train"] == 1 and "warning" not in ended.text


def test_a_dry_run_of_everything_lists_missing_pictures_and_ends_well(workflow):
    ended = workflow.run("--dry-run", "all", "--configfile", "mine.yaml")
    assert ended.planned["train"] > 10
    warnings = [line for line in ended.text.splitlines() if line.startswith("warning: ")]
    assert sorted(line.split(":")[1] for line in warnings) == [" datasets.ffhq64.path", " datasets.mine.path"]


def test_a_run_without_its_pictures_ends_before_the_first_job(workflow):
    ended = workflow.run("results/mine_fid.csv", "results/data/digits/manifest.json", "--configfile", "mine.yaml")
    assert ended.status == 1 and ended.text.splitlines()[-1].startswith("error: datasets.mine.path: ")
    assert not (workflow.folder / "results/archives").exists()


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


def test_a_plan_of_an_unknown_goal_is_one_sentence(workflow):
    environment = {**os.environ, "PYTHONPATH": str(workflow.sources)}
    for arguments, sentence in [
        (["nonsense"], "error: no rule makes nonsense; ask for a result such as results/digits_latent_fid.csv"),
        (["--configfile", "missing.yaml"], "error: missing.yaml does not exist; correct the name"),
        (["--directory", "missing"], "error: --directory: missing is not a folder"),
        (["--snakefile", "missing"], "error: --snakefile: missing does not exist"),
    ]:
        where = ["--snakefile", str(workflow.sources / "Snakefile"), "--profile", str(REPOSITORY / "profiles/local")]
        command = [sys.executable, "-m", "diffit.planning.plan", *where, *arguments]
        ended = subprocess.run(command, cwd=workflow.folder, env=environment, capture_output=True, text=True)
        assert ended.returncode == 1 and ended.stderr.startswith(sentence) and ended.stderr.count("\n") == 1, ended
