"""Tabulate the scores of a run beside the paper's value, and draw its first samples as a grid.

python -m diffit.tabulate SPEC_JSON OUT.csv --scores SCORE… --samples SAMPLES
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from diffit.cli import Parser, run_command
from diffit.data.grids import panel
from diffit.process.samplers import SAMPLERS
from diffit.registry import TEXT, object_schema
from diffit.registry.arguments import described
from diffit.store import files
from diffit.store.manifest import read_manifest

GRID_SIDE = 10
PAPER = {"type": "object", "required": ["source"]}
BASELINES = {"type": "array", "items": {"enum": ["untrained", "real"]}}


def rows(spec: dict, score: dict) -> list[dict]:
    """One row per metric of one score file; the paper's value is only beside the trained network's metric.

    Args:
        spec: ``run`` and ``paper`` of the configuration.
        score: a score file.
    """
    trained = score["samples"]["images_trained"] != 0  # None for published weights, which do not say
    found = []
    for metric in score["metrics"]:
        is_real = metric["name"] == "fid_real"
        if is_real and not trained:
            continue  # the same value as in the score of the trained network
        paper = _paper_value(spec["paper"], score["protocol"], metric) if trained else None
        found.append(
            {
                "run": spec["run"],
                "metric": metric["name"],
                "of": "real images" if is_real else "trained network" if trained else "untrained network",
                **{key: metric[key] for key in ("value", "statistic", "mean", "std")},
                "paper": paper,
                "paper_source": spec["paper"]["source"] if paper is not None else "",
                "protocol": score["protocol"],
                **{key: metric[key] for key in ("biased", "images")},
                "reference": score["reference"]["dataset"],
                "reference_images": metric["reference_images"],
                **_provenance(score, metric, is_real),
                "note": metric["note"],
            }
        )
    return found


def _provenance(score: dict, metric: dict, is_real: bool) -> dict:
    """The columns that say what a value was computed from; those about samples are empty for real images."""
    samples = score["samples"]
    return {
        "seeds": "" if is_real else _seeds(metric),
        "sampler": "" if is_real else _sampler_name(samples["sampler"]),
        "images_trained": None if is_real else samples["images_trained"],
        "resize": score["resize"],
        "precision": score["precision"],
        "network_sha256": score["network_sha256"],
        "reference_sha256": score["reference"].get("sha256", ""),
        "weights_sha256": "" if is_real else samples["weights_sha256"],
        "git_commit": score["commit"],
        "trained_commit": "" if is_real else samples["trained_commit"],
    }


def _paper_value(paper: dict, protocol: str, metric: dict) -> float | None:
    """The paper's value of a metric; None if it has another protocol or is another statistic of the sets."""
    alike = (paper.get("protocol"), paper.get("statistic")) == (protocol, metric["statistic"])
    return paper.get(metric["name"]) if alike else None


def _seeds(metric: dict) -> str:
    """The first and last seed of each set: ``0–49999, 50000–99999``."""
    firsts = [one["first_seed"] for one in metric["sets"]]
    return ", ".join(f"{first}–{first + metric['images'] - 1}" for first in firsts)


def table(spec: dict, scores: list[dict]) -> pd.DataFrame:
    """The rows of all scores of a run, in the given order."""
    frame = pd.DataFrame([row for score in scores for row in rows(spec, score)])
    counts = ["images", "reference_images", "images_trained"]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def markdown(spec: dict, frame: pd.DataFrame) -> str:
    """The table as Markdown: the columns that fit a page, a sentence that compares the values, and notes."""
    columns = ["metric", "of", "value", "statistic", "spread", "paper", "protocol", "images", "reference_images"]
    spread = [f"{mean:.4g} ± {std:.2g}" if std == std else None for mean, std in frame[["mean", "std"]].to_numpy(float)]
    shown = frame.assign(spread=spread)[[*columns, "images_trained", "biased"]]
    shown = shown.assign(value=[f"{value:.4g}" if value == value else None for value in shown["value"].astype(float)])
    if not any(spread):
        shown = shown.drop(columns=["statistic", "spread"])  # one set each
    shown = shown.assign(**{name: shown[name].astype(object).where(shown[name].notna(), "–") for name in shown})
    text = f"# {spec['run']}\n\n{shown.to_markdown(index=False, disable_numparse=True)}\n"
    if sentence := _comparison(frame):
        text += f"\n{sentence}\n"
    gaps = frame[frame["value"].isna()].drop_duplicates(["metric", "protocol"])
    for metric, protocol, note in gaps[["metric", "protocol", "note"]].to_numpy():
        text += f"\nNo {metric} under {protocol}: {note}.\n"
    if frame["biased"].any():
        text += (
            "\nBiased: computed from fewer images than the Inception network has features. FID grows as the number of "
            "images falls, so compare these values only with each other and at equal counts.\n"
        )
    return text


def _comparison(frame: pd.DataFrame) -> str:
    """FIDs of the trained network, the untrained network and real images at equal counts; empty if one is missing."""
    disjoint = frame[frame["metric"].isin(["fid_disjoint", "fid_real"]) & frame["value"].notna()]
    disjoint = disjoint[disjoint["protocol"] == disjoint["protocol"].min()].set_index("of")["value"]
    if not {"trained network", "untrained network", "real images"} <= set(disjoint.index):
        return ""
    trained, untrained, real = (disjoint[of] for of in ("trained network", "untrained network", "real images"))
    return (
        f"FID at equal counts against the same held-out part of the data: trained network {trained:.1f}, the same "
        f"network untrained {untrained:.1f} ({untrained / trained:.1f} times as high), real images {real:.1f}."
    )


def first_images(folder: Path) -> np.ndarray:
    """The first 100 images of a folder by seed, or fewer, as a grid: uint8 [H, W, 3]."""
    count = min(GRID_SIDE**2, read_manifest(folder)["count"])
    columns = min(GRID_SIDE, count)
    return panel(folder, count // columns, columns)


def _sampler_name(sampler: dict) -> str:
    """The settings that distinguish a sampler from others of its kind."""
    guidance = sampler.get("guidance", {"kind": "none"})
    parts = [
        f"{sampler['kind']}, {sampler['steps']} steps",
        *(text.format(sampler[key]) for key, text in SAMPLERS[sampler["kind"]].shown.items() if sampler.get(key)),
        f"guidance {guidance['kind']} {guidance['weight']:g}" if guidance["kind"] != "none" else "",
        _labels(sampler.get("labels")),
    ]
    return ", ".join(filter(None, parts))


def _labels(labels: str | list | None) -> str:
    if isinstance(labels, list):
        return f"classes {', '.join(map(str, labels))}"
    return f"{labels} labels" if labels else ""


def _arguments() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "spec",
        type=described("the result", lambda: object_schema({"run": TEXT, "paper": PAPER, "baselines": BASELINES})),
        help="the run's name, paper and baselines as a JSON object",
    )
    parser.add_argument("out", type=Path, help="the table to write, results/{run}_fid.csv; .md and _grid.png beside it")
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="score files, the last milestone's first")
    parser.add_argument("--samples", type=Path, required=True, help="the folder of samples for the grid")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    spec, out = arguments.spec, arguments.out
    scores = [files.read_json(path, remedy="score again") for path in arguments.scores]
    frame = table(spec, scores)
    stem = out.name.removesuffix("_fid.csv")
    with files.atomic(out.with_name(f"{stem}_grid.png")) as temporary:
        Image.fromarray(first_images(arguments.samples)).save(temporary, format="png")
    with files.atomic(out.with_suffix(".md")) as temporary:
        temporary.write_text(markdown(spec, frame))
    with files.atomic(out) as temporary:
        frame.to_csv(temporary, index=False)


if __name__ == "__main__":
    run_command(main)
