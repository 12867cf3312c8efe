"""download: fetch or link what a data set starts from, verify it, and write down what it was.

    python -m diffit.download SPEC_JSON OUT_FOLDER

``OUT_FOLDER/archive.json`` is written last and names the content by its sha256. Pictures of a folder stay
where they are: the listing of their paths and sizes stands for them. Besides data sets it fetches FID's
Inception network.
"""

from pathlib import Path

from diffit.cli import Parser, json_argument, run_command
from diffit.data.sources import SOURCES
from diffit.scoring import inception_weights
from diffit.store import files


def download(spec: dict, out: Path) -> dict:
    """Fetch the source that ``spec`` describes into the folder ``out``; returns what ``archive.json`` then says."""
    source = spec.get("source")
    fetch = inception_weights.fetch if source == "inception" else SOURCES[source].load().fetch
    out.mkdir(parents=True, exist_ok=True)
    record = {"source": source, **fetch(spec, out)}
    files.write_json(out / "archive.json", record)
    return record


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="JSON: source, path, and what else the source knows")
    parser.add_argument("out", type=Path, help="folder for archive.json")
    arguments = parser.parse_args()
    download(arguments.spec, arguments.out)


if __name__ == "__main__":
    run_command(main)
