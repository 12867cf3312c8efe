"""Summarize all tables on one page: what is reproduced, within which margin, and what is missing.

python -m diffit.paper.summary OUT.md TABLE.csv…
"""

import math
from pathlib import Path

import pandas as pd

from diffit.cli import Parser, run_command
from diffit.store import files

SUFFIXES = ("difference", "std", "biased", "score", "reason", "protocol")
MARGINS = (1, 2, 5, 10)  # percent


def numbers(path: Path) -> list[dict]:
    """Our numbers in a table, each with its row and column, the paper's value, the difference and the deviation."""
    frame = pd.read_csv(path, dtype={0: str})
    found = []
    for key in [name.removesuffix("_score") for name in frame.columns if name.endswith("_score")]:
        for _, row in frame[frame[f"{key}_score"].notna()].iterrows():
            facts = {name: row.get(f"{key}_{name}") for name in SUFFIXES}
            missing = pd.isna(row[key])
            difference = math.nan if missing else float(facts["difference"])
            value = math.nan if missing else float(row[key])
            found.append(
                {
                    **facts,
                    "table": path.stem,
                    "row": row.iloc[0],
                    "column": key,
                    "value": value,
                    "difference": difference,
                    "paper": value - difference,
                    "biased": str(facts["biased"]) == "True",
                }
            )
    return found


def verdict(number: dict) -> str:
    """How one of our numbers compares with the paper's, in words."""
    if math.isnan(number["value"]):
        return f"missing: {number['reason']}"
    if math.isnan(number["difference"]):
        return "the paper has no number to compare with"
    if number["biased"]:
        return "not comparable: too few images"
    percent = 100 * abs(number["difference"]) / abs(number["paper"])
    within = next((margin for margin in MARGINS if percent <= margin), None)
    return f"reproduced within {within}%" if within else f"off by {percent:.0f}%"


def page(found: list[dict]) -> str:
    """The summary as Markdown."""
    verdicts = [verdict(number) for number in found]
    counts = pd.Series(verdicts).value_counts() if verdicts else pd.Series(dtype=int)
    lines = [
        {
            "table": number["table"],
            "row": number["row"],
            "column": number["column"],
            "here": "–" if math.isnan(number["value"]) else f"[{number['value']:.4g}]({number['score']})",
            "paper": "–" if math.isnan(number["paper"]) else f"{number['paper']:.4g}",
            "difference": "–" if math.isnan(number["difference"]) else f"{number['difference']:+.3g}",
            "spread": "–" if pd.isna(number["std"]) else f"{number['std']:.2g}",
            "protocol": number["protocol"],
            "verdict": said,
        }
        for number, said in zip(found, verdicts, strict=True)
    ]
    body = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True) if lines else "There are no numbers yet."
    totals = "\n".join(f"- {count} × {said}" for said, count in counts.items())
    return f"# What is reproduced\n\n{totals}\n\n{body}\n"


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="the Markdown file to write")
    parser.add_argument("tables", type=Path, nargs="+", help="tables as CSV")
    arguments = parser.parse_args()
    found = [number for path in arguments.tables for number in numbers(path)]
    with files.atomic(arguments.out) as temporary:
        temporary.write_text(page(found))


if __name__ == "__main__":
    run_command(main)
