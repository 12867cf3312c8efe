"""The paper's tables through the workflow: all of them planned at both scales, and some rows made for real."""

import csv
import shutil
import time

import pytest
import yaml
from helpers.places import REPOSITORY
from helpers.workflow import Workflow


@pytest.fixture
def workflow(sources, tmp_path) -> Workflow:
    """The shipped configuration in a folder of its own."""
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    return Workflow(sources, tmp_path)


def test_every_row_of_every_table_resolves_at_the_papers_scale(workflow):
    begun = time.monotonic()
    planned = workflow.plan("tables")
    assert planned["table"] == 17 and planned["plot"] == 3 and planned["summary"] == 1
    assert planned["figure"] == 16
    assert planned["train"] > 40 and planned["release"] == 2
    assert time.monotonic() - begun < 120  # far from what it takes: a plan that grows without end should not pass


def test_every_row_of_every_table_resolves_as_a_toy(workflow):
    planned = workflow.plan("toy_tables")
    assert planned["table"] == 17 and "release" not in planned
    ended = workflow.run("--dry-run", "toy_tables")
    assert "imagenet" not in " ".join(line for line in ended.text.splitlines() if "Download" in line)


def test_an_unknown_table_is_one_sentence(workflow):
    ended = workflow.run("--dry-run", "results/tables/table66.csv")
    assert ended.status == 1 and "error: there is no table 'table66'; did you mean 'table6'?" in ended.text


def test_a_mistake_in_a_table_is_one_sentence(workflow, sources, tmp_path):
    path = sources / "workflow/tables/table6.yaml"
    text = path.read_text()
    path.write_text(text.replace("cifar10_time_in_mlp", "cifar10_time_in_lmp"))
    try:
        ended = workflow.run("--dry-run", "results/tables/table6.csv")
    finally:
        path.write_text(text)
    assert ended.status == 1
    assert "table table6, row 'G here' names 'cifar10_time_in_lmp', which is not defined; did you mean" in ended.text


@pytest.mark.slow
def test_rows_of_a_table_are_trained_sampled_and_scored_as_toys(workflow, sources, pictures, inception):
    """Table 6 of still smaller toys: three variants from real images to a table, a link for each number."""
    overlay = sources / "workflow/toy.yaml"
    text = overlay.read_text()
    smaller = yaml.safe_load(text)
    smaller["kimg"]["ushaped"], smaller["sampler"]["at_most"] = 1, {"images": 8, "steps": 3}
    small = {"source": "folder", "resolution": 32, "shards": 1, "path": str(pictures), "labels": True}
    inputs = {"datasets": {"digits32": small}, "inception": {"path": str(inception / "inception.pt")}}
    (workflow.folder / "mine.yaml").write_text(yaml.safe_dump(inputs))
    overlay.write_text(yaml.safe_dump(smaller))
    options = ["--set-threads", "train=1", "sample=1", "measure=1", "score=1", "reference=1", "--cores", "2"]
    try:
        ended = workflow.run("--configfile", "mine.yaml", *options, "--", "results/toy_tables/table6.csv")
    finally:
        overlay.write_text(text)
    assert ended.status == 0, ended.text
    rows = list(csv.DictReader((workflow.folder / "results/toy_tables/table6.csv").open()))
    assert [row["Config"] for row in rows] == ["F here", "G here", "H here"]
    values = [float(row["cifar10"]) for row in rows]
    assert len(set(values)) == 3 and min(values) > 0
    assert all(float(row["cifar10_std"]) > 0 and row["cifar10_biased"] == "True" for row in rows)
    page = (workflow.folder / "results/toy_tables/table6.md").read_text()
    for row, run in zip(rows, ("time_in_bias", "time_in_mlp", None), strict=True):
        name = f"toy_cifar10_{run}" if run else "toy_cifar10"
        assert row["cifar10_score"] == f"scores/{name}/1/toy_heun18-50k/edm.json"
        assert (workflow.folder / "results" / row["cifar10_score"]).is_file() and row["cifar10_score"] in page
    assert (workflow.folder / "results/toy_tables/table6.tex").is_file()
