"""shard: one numbered tar of a data set, as lossless RGB images at its resolution.

    python -m diffit.shard SPEC_JSON ARCHIVE_FOLDER OUT/K-of-N.tar

Piece K holds the K-th of N contiguous ranges of the sorted pictures. Any number of pieces can be made at
once, and the same pictures always give the same bytes. The output folder's name is the data set's.
"""

from collections.abc import Iterator
from pathlib import Path

from diffit import images, tars
from diffit.cli import Parser, UserError, json_argument, progress, run
from diffit.sources import Source, open_source


def shard(spec: dict, archive: Path, out: Path) -> dict:
    """Write the piece ``out`` (``K-of-N.tar``) of the data set ``spec`` and return its sidecar."""
    k, n = tars.piece_number(out)
    source, source_sha256 = open_source(archive, spec)
    class_names = list(source.class_names) if spec["labels"] else []
    return tars.write_tar(
        out,
        _samples(source, spec, piece_range(k, n, len(source.labels))),
        dataset=out.parent.name,
        resolution=spec["resolution"],
        classes=len(class_names),
        class_names=class_names,
        resize=spec["resize"],
        source_sha256=source_sha256,
    )


def piece_range(k: int, n: int, count: int) -> range:
    """The pictures of piece ``k`` of ``n``: contiguous ranges whose sizes differ by at most one."""
    if n > count:
        raise UserError(f"pieces: {n} are more than the {count} images there are; lower pieces")
    return range(k * count // n, (k + 1) * count // n)


def _samples(source: Source, spec: dict, numbers: range) -> Iterator[tuple[str, dict[str, bytes]]]:
    for i in progress(numbers, desc="shard", unit="img"):
        image = images.resize(source.image(i), spec["resize"], spec["resolution"], source.name(i))
        label = source.labels[i] if spec["labels"] else 0
        yield f"{i:08d}", {"png": images.png(image), "cls": str(label).encode()}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("spec", type=json_argument, help="JSON: source, resolution, labels, resize, min_side")
    parser.add_argument("archive", type=Path, help="the folder that download filled")
    parser.add_argument("out", type=Path, help="K-of-N.tar in a folder named like the data set")
    arguments = parser.parse_args()
    shard(arguments.spec, arguments.archive, arguments.out)


if __name__ == "__main__":
    run(main)
