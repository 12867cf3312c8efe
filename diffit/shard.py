"""shard: write one shard of a data set, a tar of lossless RGB images at its resolution.

    python -m diffit.shard SPEC_JSON ARCHIVE_FOLDER OUT/K-of-N.tar

Shard K holds the K-th of N contiguous ranges of the data set's images. Shards can be made in parallel, and equal images
give equal bytes. The name of the output folder is the name of the data set.
"""

from collections.abc import Iterator
from pathlib import Path

from diffit.cli import Parser, progress, run_command
from diffit.config.schema import images_schema
from diffit.data import images
from diffit.data.shard_ranges import shard_range
from diffit.data.sources import Images, open_archive
from diffit.registry.arguments import described
from diffit.store import tars
from diffit.store.manifest import shard_number


def shard(spec: dict, archive: Path, out: Path) -> dict:
    """Write the shard ``out``, named ``K-of-N.tar``, of a data set and return its sidecar.

    ``archive`` is the folder that the download stage made from ``spec``. Raises :class:`UserError` for a damaged
    archive, an image that cannot be decoded or resized, and more shards than images.
    """
    k, n = shard_number(out)
    source, source_sha256 = open_archive(archive, spec)
    class_names = list(source.class_names) if spec["labels"] else []
    return tars.write_tar(
        out,
        _samples(source, spec, shard_range(k, n, len(source.labels))),
        dataset=out.parent.name,
        resolution=spec["resolution"],
        classes=len(class_names),
        class_names=class_names,
        resize=spec["resize"],
        source_sha256=source_sha256,
    )


def _samples(source: Images, spec: dict, numbers: range) -> Iterator[tuple[str, dict[str, bytes]]]:
    for i in progress(numbers, desc="shard", unit="img"):
        image = images.resize(source.image(i), spec["resize"], spec["resolution"], source.name(i))
        label = source.labels[i] if spec["labels"] else 0
        yield f"{i:08d}", {"png": images.png(image), "cls": str(label).encode()}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "spec",
        type=described("the data set", images_schema),
        help="the data set as a JSON object: source, resolution, labels, resize, …",
    )
    parser.add_argument("archive", type=Path, help="the folder that the download stage made")
    parser.add_argument("out", type=Path, help="the shard to write, K-of-N.tar, in a folder named like the data set")
    arguments = parser.parse_args()
    shard(arguments.spec, arguments.archive, arguments.out)


if __name__ == "__main__":
    run_command(main)
