"""download: fetch the archive of a data set, verify it and record its sha256.

    python -m diffit.download SPEC_JSON OUT_FOLDER

``OUT_FOLDER/archive.json`` is written last and contains the sha256 of the content. Images in the user's own folder are
not copied; the archive is then a listing of their paths and sizes. The stage also fetches FID's Inception network
(source ``inception``).
"""

from pathlib import Path

from diffit.cli import Parser, run_command
from diffit.config.schema import archive_schema
from diffit.data.sources import SOURCES
from diffit.registry.arguments import described
from diffit.scoring import inception_weights
from diffit.store import files


def download(spec: dict, out: Path) -> dict:
    """Fetch the archive of a data set into the folder ``out`` and return the content of its ``archive.json``.

    ``spec`` is an entry of ``datasets`` in the config, or ``{"source": "inception", …}``. Raises :class:`UserError` for
    an unknown source and if the archive cannot be fetched or verified.
    """
    source = spec.get("source")
    fetch = inception_weights.fetch if source == "inception" else SOURCES[source].load().fetch
    out.mkdir(parents=True, exist_ok=True)
    record = {"source": source, **fetch(spec, out)}
    files.write_json(out / "archive.json", record)
    return record


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "spec",
        type=described("the data set", archive_schema),
        help="the data set as a JSON object: source, path and other keys of the source",
    )
    parser.add_argument("out", type=Path, help="the archive's folder")
    arguments = parser.parse_args()
    download(arguments.spec, arguments.out)


if __name__ == "__main__":
    run_command(main)
