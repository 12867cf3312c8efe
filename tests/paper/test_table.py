"""The paper's tables: their layout, the paper's numbers, and ours beside them."""

import copy
import csv
import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from helpers.places import REPOSITORY

from diffit.cli import UserError
from diffit.config.toy_runs import OVERLAY, complete, load_overlay
from diffit.nets.inspect import parts
from diffit.paper import summary, table_files
from diffit.paper.plot import draw
from diffit.paper.scale import Scale
from diffit.paper.table import GAP, architecture, as_frame, as_latex, as_markdown, escaped, fill, sizes

TABLES = sorted((REPOSITORY / "workflow/tables").glob("*.yaml"))
SCHEMA = REPOSITORY / "workflow/schemas/table.schema.yaml"
SMALL = """
title: A table
name: Model
columns:
  - {key: kind, heading: Kind}
  - {key: fid, heading: FID, group: CIFAR-10, metric: fid, protocol: edm, statistic: minimum}
rows:
  - {name: Paper's, cells: {kind: A & B_2, fid: 1.95}}
  - {name: Ours, against: Paper's, cells: {kind: A}, ours: {CIFAR-10: {run: cifar10}}}
notes: [A note]
"""


@pytest.fixture(scope="module")
def config() -> dict:
    return complete(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), REPOSITORY)


def overlay() -> dict:
    return load_overlay(REPOSITORY / OVERLAY)


def write(folder: Path, text: str = SMALL) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def score(path: Path, value: float | None, samples: dict | None = None, **changes) -> None:
    metric = {
        "name": "fid", "value": value, "statistic": "minimum", "mean": None, "std": 0.01, "biased": False,
        "note": "why", **changes,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"protocol": "edm", "metrics": [metric], "samples": samples or {}}))


@pytest.fixture
def small(tmp_path, config):
    """The small table with a score of ours, and its cells: ``(table, rows)``."""

    def lay_out(value: float | None, **changes):
        table = table_files.resolve("small", table_files.read(write(tmp_path), SCHEMA), Scale(config))
        score(tmp_path / table["rows"][1]["scores"]["fid"], value, **changes)
        return table, fill(table, tmp_path)

    return lay_out


# ------------------------------------------------------------------------------------------------- the shipped tables


def test_every_table_and_every_plotted_figure_is_described():
    assert {path.stem for path in TABLES} >= {
        *(f"table{number}" for number in range(1, 10)), "tableS1", "tableS2", "tableS3",
        "figure7a", "figure7b", "figure8",
    }  # fmt: skip


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_row_of_ours_resolves_to_a_score_at_both_scales(path, config):
    table = table_files.read(path, SCHEMA)
    ours = [row for row in table["rows"] if "ours" in row]
    for toy in (None, overlay()):
        resolved = table_files.resolve(path.stem, table, Scale(config, toy))
        rows = [row for row in resolved["rows"] if row["scores"]]
        assert len(rows) == len(ours)
        published = [row["name"] for row in rows if "released" in row["name"]]
        assert not (toy and published)
        for place in itertools.chain.from_iterable(row["scores"].values() for row in rows):
            run, milestone, sampler = re.fullmatch(r"scores/([^/]+)/([^/]+)/([^/]+)/(?:adm|edm)\.json", place).groups()
            assert run.startswith("toy_") == bool(toy) and sampler in config["samplers"]
            milestones = config["runs"][run].get("milestones", ["released"])
            assert milestone in map(str, milestones)


def test_table_1_has_the_papers_columns_and_rows_in_its_order(config, tmp_path):
    table = table_files.resolve(
        "table1", table_files.read(REPOSITORY / "workflow/tables/table1.yaml", SCHEMA), Scale(config)
    )
    table["rows"] = [row for row in table["rows"] if not row["scores"]]
    rows = fill(table, tmp_path)
    frame = as_frame(table, rows)
    scores = ["fid", "is", "precision", "recall"]
    assert [name for name in frame.columns if name.removesuffix("256").removesuffix("512") in scores] == [
        f"{name}{size}" for size in (256, 512) for name in scores
    ]
    assert frame["Model"].tolist() == [
        "LDM-4 [59]", "BigGAN-Deep [10]", "MaskGIT [11]", "RQ-Transformer [46]", "ADM-G-U [16]", "LDM-4-G [59]",
        "Simple Diffusion [30]", "DiT-XL/2-G [56]", "StyleGAN-XL [65]", "MDT-G [23]", "SiT-XL [51]", "DiffiT",
    ]  # fmt: skip
    latex = as_latex(table, rows)
    assert (
        r" &  & \multicolumn{4}{c}{ImageNet-256} & \multicolumn{4}{c}{ImageNet-512} \\".replace(" &  & ", "") in latex
    )
    line = next(line for line in latex.splitlines() if line.startswith("MaskGIT"))
    assert line == r"MaskGIT [11] & Masked Modeling & 4.02 & 355.60 & 0.83 & 0.44 & 4.46 & 342.00 & 0.83 & 0.50 \\"
    # A value that the paper does not have is a gap.
    line = next(line for line in latex.splitlines() if line.startswith("MDT-G"))
    assert line.count("--") == 4 and frame.loc[frame["Model"] == "MDT-G [23]", "fid512"].isna().all()


# ------------------------------------------------------------------------------------------------------- ours beside


def test_our_number_shows_its_spread_difference_and_score_file(small):
    table, rows = small(1.96)
    assert rows[1]["fid"].text() == "1.96 ± 0.01 (+0.01)"
    frame = as_frame(table, rows)
    assert frame.loc[1, "fid_score"] == "scores/cifar10/102400/heun18-50k/edm.json"
    assert frame.loc[1, ["fid", "fid_std", "fid_protocol"]].tolist() == [1.96, 0.01, "edm"]
    assert frame.loc[1, "fid_difference"] == pytest.approx(0.01)
    assert f"[1.96 ± 0.01 (+0.01)](../{frame.loc[1, 'fid_score']})" in as_markdown(table, rows, "../")


@pytest.mark.parametrize(
    ("value", "marked"), [(1.95, False), (1.98, False), (1.992, True), (1.90, True), (1.92, False)]
)
def test_a_value_outside_the_spread_is_marked(small, value, marked):
    table, rows = small(value)
    assert rows[1]["fid"].text().endswith("*") == marked
    assert ("* further from" in as_markdown(table, rows, "../")) == marked


def test_a_minimum_is_not_compared_with_a_single_value(small):
    _, rows = small(1.96, statistic="single", std=None)
    assert rows[1]["fid"].text() == "1.96" and rows[1]["fid"].difference is None


def test_gaps_stay_gaps_with_their_reason_and_bias_is_flagged(small):
    table, rows = small(None)
    assert rows[1]["fid"].text() == GAP
    assert f"{GAP} why." in as_markdown(table, rows, "../") and as_frame(table, rows)["fid"].isna()[1]
    table, rows = small(99.0, biased=True)
    assert "†" in rows[1]["fid"].text() and "† fewer images" in as_markdown(table, rows, "../")


def test_a_score_of_a_training_that_skipped_steps_is_marked(small):
    table, rows = small(1.96, samples={"skipped_steps": [7]})
    assert rows[1]["fid"].text().endswith("‡") and "‡ trained without" in as_markdown(table, rows, "../")
    assert r"$^\ddagger$ trained without" in as_latex(table, rows)
    table, rows = small(1.96)
    assert "‡" not in as_markdown(table, rows, "../")


def test_a_score_of_another_protocol_is_refused(small, tmp_path):
    table, _ = small(1.95)
    path = tmp_path / table["rows"][1]["scores"]["fid"]
    path.write_text(path.read_text().replace('"edm"', '"clean"'))
    with pytest.raises(UserError, match="has the protocol clean, but its column has edm"):
        fill(table, tmp_path)


def test_latex_is_escaped_and_balanced(small):
    table, rows = small(1.9, biased=True)
    text = as_latex(table, rows)
    assert r"A \& B\_2" in text and r"1.90 $\pm$ 0.01 (-0.05)$^\dagger$$^*$" in text
    assert text.count("{") == text.count("}") and text.count(r"\begin") == text.count(r"\end") == 2
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1 for line in body)
    assert escaped("50% of #1_{x}^2~") == r"50\% of \#1\_\{x\}\textasciicircum{}2\textasciitilde{}"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("run: cifar10", "run: cifar", "small, row 'Ours' names 'cifar', which is not defined; did you mean 'cifar10'"),
        ("run: cifar10}", "run: cifar10, sampler: heun}", "names 'heun', which is not defined"),
        ("run: cifar10}", "run: cifar10, milestone: 7}", r"cifar10 has no milestone 7; its milestones are \[102400\]"),
        ("against: Paper's", "against: Papers", "names 'Papers', which is not defined; did you mean \"Paper's\""),
        ("{kind: A}", "{kynd: A}", "cells names 'kynd', which is not defined; did you mean 'kind'"),
        ("notes:", "note:", r"small\.yaml: the top level has an unknown key 'note'; did you mean 'notes'"),
        ("metric: fid, ", "metric: fit, ", r"small\.yaml: columns\.1\.metric: 'fit' is not one of"),
        ("ours: {CIFAR-10:", "ours: {FFHQ:", "ours names 'FFHQ', which is not defined"),
        ("name: Ours", "name: Paper's", "has the row \"Paper's\" twice"),
        ("rows:", "rows: [", r"small\.yaml, line 8: expected"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_is_reported_in_one_sentence(tmp_path, config, before, after, message):
    with pytest.raises(UserError, match=message):
        table_files.resolve(
            "small", table_files.read(write(tmp_path, SMALL.replace(before, after, 1)), SCHEMA), Scale(config)
        )


def test_a_run_with_the_name_of_a_toy_is_refused():
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    config["runs"]["toy_cifar10"] = config["runs"]["digits"]
    with pytest.raises(UserError, match=r"runs\.toy_cifar10 begins with toy_, as only toys do; rename it"):
        complete(config, REPOSITORY)


def test_a_configuration_without_the_data_of_toys_has_no_toys():
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    config["datasets"]["numbers"] = config["datasets"].pop("digits32")
    config["vaes"]["digits-vae"]["dataset"] = config["runs"]["digits_latent"]["dataset"] = "numbers"
    assert not [name for name in complete(config, REPOSITORY)["runs"] if name.startswith("toy_")]


# --------------------------------------------------------------------------------------------- computed from networks


def test_table_9_follows_from_the_networks(config, tmp_path):
    table = table_files.resolve(
        "table9", table_files.read(REPOSITORY / "workflow/tables/table9.yaml", SCHEMA), Scale(config)
    )
    rows = dict(zip([row["name"] for row in table["rows"]], fill(table, tmp_path), strict=True))
    values = {name: {key: cell.value for key, cell in cells.items()} for name, cells in rows.items()}
    ours, dit, printed = values["DiffiT here"], values["DiT-XL/2-G here"], values["DiT-XL/2-G [56]"]
    assert ours["parameters"] == pytest.approx(561.330144 - 256 * 1152 / 1e6)  # the table is not a parameter
    assert ours["flops"] == pytest.approx(118.5, abs=0.05)
    assert ours["linear"] == pytest.approx(114.3, abs=0.05)
    assert dit["flops"] == pytest.approx(118.6, abs=0.05)
    assert dit["fewer_parameters"] == pytest.approx(100 * (674.834720 - 561.035232) / 674.834720)
    assert ours["fewer_flops"] is None
    # The paper's percentages stay as printed, and its row of DiffiT has none.
    assert (printed["fewer_parameters"], printed["fewer_flops"], printed["fewer_linear"]) == (16.88, 4.38, None)
    assert values["DiffiT"]["fewer_parameters"] is values["DiffiT"]["fewer_flops"] is None
    assert rows["DiT-XL/2-G [56]"]["parameters"].text() == "675" and dit["fid"] is None


@pytest.mark.parametrize("is_toy", [False, True], ids=["paper", "toy"])  # the network is the paper's in both
@pytest.mark.parametrize(("name", "different"), [("tableS2", [3, 5]), ("tableS3", [5])])
def test_the_papers_sizes_stand_beside_those_of_the_network(name, different, is_toy, config):
    printed = table_files.read(REPOSITORY / f"workflow/tables/{name}.yaml", SCHEMA)
    rows = architecture(table_files.resolve(name, printed, Scale(config, overlay() if is_toy else None)))["rows"]
    assert [number for number, row in enumerate(rows) if row["cells"]["size"] != row["cells"]["paper"]] == different
    # The names differ in the number of blocks and of a repeated component only.
    for row, component in zip(rows, printed["rows"], strict=True):
        assert row["name"].split(" ")[0] == component["name"].split(" ")[0]


def test_the_papers_sizes_are_left_out_beside_a_network_of_other_components(config):
    shallow = copy.deepcopy(config)
    shallow["runs"]["ffhq64"]["net"]["multipliers"] = [1, 2, 2]
    table = table_files.resolve(
        "tableS2", table_files.read(REPOSITORY / "workflow/tables/tableS2.yaml", SCHEMA), Scale(shallow)
    )
    rows = architecture(table)["rows"]
    assert len(rows) == 7 and all(row["cells"].keys() == {"size"} for row in rows)


def test_multiply_adds_of_a_small_network_are_those_of_its_formula():
    spec = {
        "kind": "latent", "input_size": 4, "channels": 4, "patch_size": 1, "hidden_size": 8, "depth": 1, "num_heads": 2,
        "mlp_ratio": 2, "num_classes": 3,
    }  # fmt: skip
    n, d = 16, 8
    attention = 2 * n * n * d
    linear = n * 4 * d + (256 * d + d * d) + n * d * 3 * d + d * 3 * d + n * d * d + n * 2 * d * 2 * d + n * d * 8
    found = sizes(spec)
    assert found["linear_multiply_adds"] * 1e9 == pytest.approx(linear)
    assert (found["multiply_adds"] - found["linear_multiply_adds"]) * 1e9 == pytest.approx(attention)


def test_parts_follow_the_network_from_image_to_image():
    spec = {
        "kind": "ushaped", "resolution": 16, "channels": 3, "width": 8, "multipliers": [1, 2], "blocks": 3, "window": 4,
        "head_dim": 8, "mlp_ratio": 1, "time_dim": 8, "groups": 2, "dropout": 0.0, "augment_labels": 0,
    }  # fmt: skip
    assert parts(spec, "encoder") == [
        ("Input", "16 × 16 × 3"), ("Tokenizer", "16 × 16 × 8"), ("DiffiT ResBlock × 3", "16 × 16 × 8"),
        ("Downsampler", "8 × 8 × 16"), ("DiffiT ResBlock × 3", "8 × 8 × 16"),
    ]  # fmt: skip
    assert parts(spec, "decoder") == [
        ("Input", "8 × 8 × 16"), ("Upsampler", "16 × 16 × 8"), ("DiffiT ResBlock × 3", "16 × 16 × 8"),
        ("Head", "16 × 16 × 3"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ figures, summary


def test_a_plot_is_drawn_from_the_columns_that_it_names(tmp_path, config):
    text = SMALL.replace("kind: A & B_2", "kind: 1").replace("{kind: A}", "{kind: 2}") + "figure: {x: kind, y: [fid]}\n"
    table = table_files.resolve("small", table_files.read(write(tmp_path, text), SCHEMA), Scale(config))
    score(tmp_path / table["rows"][1]["scores"]["fid"], 1.9)
    draw(table, fill(table, tmp_path), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_lists_what_is_reproduced_and_what_is_missing(small, tmp_path):
    said = {}
    for name, value, changes in [
        ("near", 1.96, {}),
        ("far", 3.9, {}),
        ("gap", None, {}),
        ("few", 9.0, {"biased": True}),
    ]:
        table, rows = small(value, **changes)
        as_frame(table, rows).to_csv(tmp_path / f"{name}.csv", index=False)
        (number,) = summary.numbers(tmp_path / f"{name}.csv")
        said[name] = summary.verdict(number)
    assert said == {
        "near": "reproduced within 1%", "far": "off by 100%", "gap": "missing: why",
        "few": "not comparable: too few images",
    }  # fmt: skip
    text = summary.page([number for name in said for number in summary.numbers(tmp_path / f"{name}.csv")])
    assert "- 1 × reproduced within 1%" in text and "nan" not in text
    with (tmp_path / "near.csv").open() as file:
        assert next(csv.DictReader(file))["Model"] == "Paper's"
