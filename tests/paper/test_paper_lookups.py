"""Lookups of the rules for tables and figures: inputs and commands at both scales, and figures of a new kind."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from helpers.places import REPOSITORY
from PIL import Image

from diffit.cli import UserError
from diffit.config.toy_runs import complete
from diffit.paper.figures import FIGURES, FigureKind
from diffit.paper.lookups import PaperLookups
from diffit.registry import COUNT, TEXT
from diffit.store.fingerprint import fingerprint

SQUARE_COMMAND = '''
"""Draw a square."""

import sys

from PIL import Image

out, side, color = sys.argv[1:]
Image.new("RGB", (int(side), int(side)), color).save(out)
'''


@pytest.fixture(scope="module")
def config() -> dict:
    return complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)


@pytest.fixture(scope="module")
def look(config) -> PaperLookups:
    return PaperLookups(config, REPOSITORY)


@pytest.fixture
def sources(tmp_path) -> Path:
    """A copy of the sources' tables and figures, to edit."""
    shutil.copytree(REPOSITORY / "workflow", tmp_path / "workflow")
    return tmp_path


def edit_figures(sources: Path, before: str, after: str) -> None:
    path = sources / "workflow/figures.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def figure(name: str, toy: str = "") -> SimpleNamespace:
    return SimpleNamespace(figure=name, toy=toy)


def table(name: str, toy: str = "") -> SimpleNamespace:
    return SimpleNamespace(table=name, toy=toy)


# ------------------------------------------------------------------------------------------------------------- tables


def test_a_table_names_the_scores_of_its_rows_at_both_scales(look):
    assert look.table_scores(table("table6")) == [
        f"results/scores/{run}/102400/heun18-50k/edm.json"
        for run in ("cifar10_time_in_bias", "cifar10_time_in_mlp", "cifar10")
    ]
    assert look.table_scores(table("table6", "toy_"))[2] == "results/scores/toy_cifar10/4/toy_heun18-50k/edm.json"


def test_a_table_of_both_resolutions_names_each_score_once(look):
    scores = look.table_scores(table("table1"))
    assert scores[:2] == [
        "results/scores/imagenet256_released/released/ddpm250-cosine-4_4-50k/adm.json",
        "results/scores/imagenet512_released/released/ddpm250-constant-50k/adm.json",
    ]
    assert len(scores) == len(set(scores)) == 4


def test_the_description_of_a_table_holds_what_its_command_needs(look):
    rows = json.loads(look.table_spec(table("table9")))["rows"]
    assert [sorted(row) for row in rows if "network" in row] == [["cells", "name", "network", "scores"]] * 3
    toy = json.loads(look.table_spec(table("table2", "toy_")))
    assert toy["title"].startswith("Toy digits: ") and all(row["scores"] for row in toy["rows"])


def test_toys_of_published_weights_are_toys_of_the_training(look):
    assert not [path for path in look.all_scores(table("", "toy_")) if "released" in path]
    rows = json.loads(look.table_spec(table("table1", "toy_")))["rows"]
    assert [row["name"] for row in rows] == ["DiffiT, toy weights (as a toy: trained)", "DiffiT, trained here"]


def test_titles_headings_and_rows_of_toys_name_the_digits_and_not_the_data_of_the_paper(look):
    for name in look.tables:
        spec = json.loads(look.table_spec(table(name, "toy_")))
        if any(row["scores"] for row in spec["rows"]):
            columns = [text for column in spec["columns"] for text in (column["heading"], column["group"])]
            shown = " ".join([spec["title"], *columns, *(row["name"] for row in spec["rows"])])
            assert not re.search("ImageNet|CIFAR|FFHQ|released", shown), shown
            assert spec["title"].startswith("Toy digits: ")
        assert "digits" not in json.loads(look.table_spec(table(name)))["title"]


def test_a_table_that_does_not_exist_is_named_with_the_nearest_one(look):
    with pytest.raises(UserError, match="there is no table 'table66'; did you mean 'table6'"):
        look.table_scores(table("table66"))


def test_all_tables_and_the_plots_of_some_are_results(look):
    results = look.table_results("toy_tables")
    assert [path for path in results if path.endswith(".png")] == [
        f"results/toy_tables/{name}.png" for name in ("figure7a", "figure7b", "figure8")
    ]
    assert look.summary_tables(table("", "toy_")) == [path for path in results if path.endswith(".csv")]
    assert look.table_results("tables")[0] == "results/tables/equation2.csv"


def test_the_jobs_behind_all_tables_are_read_off_legs_samples_and_features(look):
    jobs = look.table_jobs(table(""))
    assert len(jobs) == len(set(jobs))
    assert "train=results/runs/cifar10/state/legs.json" in jobs
    assert "sample=results/samples/imagenet256_released/released/ddpm250-cosine-4_4-50k/manifest.json" in jobs
    assert "measure=results/samples/cifar10/102400/heun18-50k/features/edm/manifest.json" in jobs
    assert not [job for job in jobs if job.startswith("train=") and "released" in job]


def test_runs_that_are_trained_have_a_curve(look):
    curves = look.table_curves("")
    assert "results/cifar10_curve.png" in curves and "results/imagenet256_released_curve.png" not in curves
    assert "results/toy_cifar10_curve.png" in look.table_curves("toy_")


# ------------------------------------------------------------------------------------------------------------ figures


def test_a_grid_is_drawn_from_the_samples_of_its_runs(look):
    manifests = [
        "results/samples/imagenet512_released/released/classes-512/manifest.json",
        "results/samples/imagenet256_released/released/classes-256/manifest.json",
    ]
    assert look.figure_inputs(figure("figure1")) == manifests
    layout, *folders = look.figure_arguments(figure("figure1"))
    assert json.loads(layout) == {"rows": 2, "columns": 4, "classes": None}
    assert folders == [path.removesuffix("/manifest.json") for path in manifests]
    assert look.figure_module(figure("figure1")) == "diffit.paper.image_grid"


def test_a_grid_of_toys_has_fewer_rows_and_no_classes(look):
    layout, _ = look.figure_arguments(figure("figureS4"))
    assert json.loads(layout) == {"rows": 3, "columns": 4, "classes": [207, 88]}
    layout, folder = look.figure_arguments(figure("figureS2", "toy_"))
    assert json.loads(layout) == {"rows": 6, "columns": 12, "classes": None}
    assert folder == "results/samples/toy_cifar10/4/toy_heun18-50k"
    layout, folder = look.figure_arguments(figure("figureS4", "toy_"))
    assert json.loads(layout)["classes"] is None and folder == "results/samples/toy_imagenet512/20/toy_classes-512"


def test_attention_is_drawn_from_milestones_by_the_sampler_of_the_first_run(look, config):
    assert look.figure_inputs(figure("figure2")) == [
        f"results/runs/{run}/102400/ema.safetensors" for run in ("cifar10", "cifar10_time_in_mlp")
    ]
    sampler, *others = look.figure_arguments(figure("figure2"))
    assert json.loads(sampler) == config["samplers"]["heun18-50k"]
    assert others == ["results/runs/cifar10/102400", "results/runs/cifar10_time_in_mlp/102400", "--seed", "0"]
    sampler, *_ = look.figure_arguments(figure("figure2", "toy_"))
    assert json.loads(sampler) == config["samplers"]["toy_heun18-50k"]


def test_a_diagram_needs_no_results_and_has_no_toy(look):
    assert look.figure_inputs(figure("figure3")) == []
    (described,) = look.figure_arguments(figure("figure3"))
    assert list(json.loads(described)["runs"]) == ["imagenet256"]
    with pytest.raises(UserError, match=r"figure 'figure3' has no toy; ask for results/figures/figure3\.png"):
        look.figure_inputs(figure("figure3", "toy_"))


def test_all_figures_are_results_and_toys_lack_the_diagrams(look):
    assert len(look.figure_results("figures")) == 16 and "results/figures/figureS1.png" in look.figure_results(
        "figures"
    )
    assert len(look.figure_results("toy_figures")) == 13
    assert set(look.figure_names().split("|")) == set(look.figures)


def test_a_figure_depends_on_the_code_of_its_command_only(look):
    assert look.figure_code(figure("figure1")) == fingerprint(["diffit.paper.image_grid"])
    assert look.figure_code(figure("figure1")) != look.figure_code(figure("figure2"))


def test_a_diagram_is_drawn_by_its_command(look, tmp_path):
    arguments = look.figure_arguments(figure("figure4"))
    command = [sys.executable, "-m", look.figure_module(figure("figure4")), str(tmp_path / "diagram.png"), *arguments]
    subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
    assert Image.open(tmp_path / "diagram.png").size[0] > 200


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("grids:", "grid:", "there is no section of figures 'grid'; did you mean 'grids'"),
        (
            "rows: 6,",
            "row: 6,",
            r"workflow/figures\.yaml: grids\.figure6 has an unknown key 'row'; did you mean 'rows'",
        ),
        ("{run: imagenet256}", "{run: 3}", r"diagrams\.figure3\.run is 3, but must be text"),
        ("figure4:", "figure2:", "has the figure 'figure2' twice"),
        ("diagrams:", "diagrams: [", r"workflow/figures\.yaml, line 26: expected"),
    ],
)
def test_a_mistake_in_the_figures_is_one_sentence(config, sources, before, after, message):
    edit_figures(sources, before, after)
    with pytest.raises(UserError, match=message):
        PaperLookups(config, sources)


def test_a_name_that_a_figure_gets_wrong_is_named_with_the_nearest_one(config, sources):
    edit_figures(sources, "figure6:  {runs: [ffhq64]", "figure6:  {runs: [fhq64]")
    edit_figures(sources, "samplers: [classes-512, classes-256]", "samplers: [classes-512]")
    look = PaperLookups(config, sources)
    with pytest.raises(UserError, match=r"workflow/figures\.yaml names 'fhq64', which is not defined; did you mean"):
        look.figure_inputs(figure("figure6"))
    with pytest.raises(UserError, match="differ in number; name one sampler per run"):
        look.figure_inputs(figure("figure1"))
    with pytest.raises(UserError, match="there is no figure 'figure66'; did you mean 'figure6'"):
        look.figure_inputs(figure("figure66"))


def test_a_figure_kind_that_is_registered_is_looked_up_and_drawn(config, sources, tmp_path):
    (tmp_path / "square.py").write_text(SQUARE_COMMAND)
    squares = FigureKind(
        name="squares",
        description="a square of one colour",
        module="square",
        has_toys=True,
        settings={"side": COUNT, "color": TEXT, "run": TEXT},
        inputs=lambda figure, scale: [scale.samples("squares", figure["run"]).score("clean")],
        arguments=lambda figure, scale: [str(figure["side"] // (2 if scale.overlay else 1)), figure["color"]],
    )
    edit_figures(sources, "diagrams:", "squares:\n  figure9: {run: cifar10, side: 40, color: navy}\ndiagrams:")
    with FIGURES.extended(squares):
        look = PaperLookups(config, sources)
        assert look.figure_inputs(figure("figure9")) == ["results/scores/cifar10/102400/heun18-50k/clean.json"]
        for toy, side in (("", 40), ("toy_", 20)):
            out = tmp_path / f"{toy}figure9.png"
            assert f"results/{toy}figures/figure9.png" in look.figure_results(f"{toy}figures")
            called = [
                look.figure_module(figure("figure9", toy)),
                str(out),
                *look.figure_arguments(figure("figure9", toy)),
            ]
            subprocess.run([sys.executable, "-m", *called], check=True, cwd=tmp_path)
            assert Image.open(out).size == (side, side) and Image.open(out).getpixel((0, 0)) == (0, 0, 128)
