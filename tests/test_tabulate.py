"""The result table of a run, its grid of samples and its training curve."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from diffit.cli import UserError
from diffit.paper.training_curve import draw_curve
from diffit.store import tars
from diffit.store.manifest import gather
from diffit.store.members import encode_npy
from diffit.tabulate import first_images, markdown, table

PAPER = {"fid": 1.95, "protocol": "clean", "statistic": "single", "source": "Table 2"}
SPEC = {"run": "digits", "paper": PAPER, "baselines": ["untrained", "real"]}


def score(images_trained: int, fid: float, protocol: str = "clean", **changes) -> dict:
    counts = {
        "images": 500, "reference_images": 1797, "biased": True, "note": "few", "statistic": "single", "mean": None,
        "std": None, "sets": [{"first_seed": 0, "value": fid}], **changes,
    }  # fmt: skip
    return {
        "protocol": protocol,
        "resize": "pillow_bicubic",
        "precision": "float32",
        "network_sha256": "n",
        "commit": "abc",
        "reference": {"dataset": "digits", "sha256": "r"},
        "samples": {
            "images_trained": images_trained,
            "weights_sha256": f"weights at {images_trained}",
            "trained_commit": "def",
            "sampler": {"kind": "heun", "steps": 18, "s_churn": 0, "first_seed": 0},
        },
        "metrics": [
            {"name": "fid", "value": fid, **counts},
            {"name": "kid", "value": 0.01, **counts, "biased": False},
            {"name": "fid_disjoint", "value": fid + 1, **counts},
            {"name": "fid_real", "value": 12.0, **counts},
        ],
    }


@pytest.fixture
def frame() -> pd.DataFrame:
    return table(SPEC, [score(115_008, 25.0), score(0, 396.0)])


def test_there_is_one_row_per_metric_of_each_network_and_one_of_real_images(frame):
    assert list(zip(frame["metric"], frame["of"], strict=True)) == [
        ("fid", "trained network"),
        ("kid", "trained network"),
        ("fid_disjoint", "trained network"),
        ("fid_real", "real images"),
        ("fid", "untrained network"),
        ("kid", "untrained network"),
        ("fid_disjoint", "untrained network"),
    ]


def test_the_papers_value_is_only_beside_the_trained_networks_metric(frame):
    assert frame["paper"].notna().sum() == 1
    assert frame.loc[0, ["metric", "paper", "paper_source"]].tolist() == ["fid", 1.95, "Table 2"]


def test_every_row_names_what_it_was_computed_from(frame):
    for column in [
        "protocol",
        "resize",
        "precision",
        "network_sha256",
        "images",
        "reference",
        "reference_sha256",
        "git_commit",
    ]:
        assert frame[column].notna().all()
    made = frame[frame["of"] != "real images"]
    for column in ["seeds", "sampler", "images_trained", "weights_sha256"]:
        assert made[column].notna().all()


def test_the_table_survives_its_csv_with_whole_numbers_whole(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert "115008," in (tmp_path / "t.csv").read_text()
    assert pd.read_csv(tmp_path / "t.csv")["value"].tolist() == frame["value"].tolist()


def test_the_page_compares_at_equal_counts_and_flags_the_bias(frame):
    text = markdown(SPEC, frame)
    assert (
        "trained network 26.0" in text and "untrained 397.0 (15.3 times as high)" in text and "real images 12.0" in text
    )
    assert "Biased" in text
    assert "Biased" not in markdown(SPEC, frame.assign(biased=False))


def test_the_grid_shows_the_first_images_in_order_of_seed(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)

    members = [(f"{i:08d}", {"npy": encode_npy(image)}) for i, image in enumerate(pictures)]
    tars.write_tar(tmp_path / "0-of-1.tar", members)
    gather(tmp_path, 1)
    grid = first_images(tmp_path)
    assert grid.shape == (3 * 50 + 2, 10 * 50 + 2, 3)
    for index in (0, 11, 29):
        top, left = 2 + index // 10 * 50, 2 + index % 10 * 50
        enlarged = Image.fromarray(pictures[index]).resize((48, 48), Image.Resampling.BICUBIC)
        assert np.array_equal(grid[top : top + 48, left : left + 48], np.asarray(enlarged))


def test_a_curve_is_drawn_from_the_log_and_an_empty_log_is_refused(tmp_path):
    draw_curve("digits", [{"images": 64 * i, "loss": 1 / i} for i in range(1, 30)], tmp_path / "curve.png")
    assert np.asarray(Image.open(tmp_path / "curve.png")).std() > 0
    with pytest.raises(UserError, match="log of digits is empty"):
        draw_curve("digits", [], tmp_path / "none.png")


def test_the_papers_minimum_is_only_beside_a_minimum_under_its_protocol():
    spec = {**SPEC, "paper": {**PAPER, "protocol": "edm", "statistic": "minimum"}}
    sets = [{"first_seed": first, "value": 2.0} for first in (0, 500, 1000)]
    minimum = {"statistic": "minimum", "mean": 2.1, "std": 0.1, "sets": sets}
    frame = table(spec, [score(1, 2.0, "edm", **minimum), score(1, 2.0, "edm"), score(1, 2.0, "clean", **minimum)])
    fids = frame[frame["metric"] == "fid"]
    assert fids["paper"].tolist()[0] == 1.95 and fids["paper"].isna().tolist() == [False, True, True]
    assert fids["seeds"].tolist()[0] == "0–499, 500–999, 1000–1499"
    assert "2.1 ± 0.1" in markdown(spec, frame)
    assert "±" not in markdown(SPEC, table(SPEC, [score(1, 2.0)]))


def test_a_gap_shows_as_a_gap_with_its_reason():
    without = score(1, 2.0)
    without["metrics"] = [{**without["metrics"][1], "name": "inception_score", "value": None, "note": "no classes"}]
    text = markdown(SPEC, table(SPEC, [score(1, 2.0), without]))
    assert "No inception_score under clean: no classes." in text
    row = next(line for line in text.splitlines() if line.startswith("| inception_score"))
    assert "nan" not in text and "–" in row
