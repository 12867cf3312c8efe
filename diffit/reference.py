"""reference: what samples are compared with under a protocol, made once of a data set's features for all runs.

    python -m diffit.reference FEATURES OUT.npz --dataset NAME [--published ARCHIVE]

FEATURES is the folder of features of the data set, or of one that stands for it; with ``--published``, ADM's reference
batch, whose archive holds the statistics of the whole training set.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffit import draws, files, published
from diffit.cli import Parser, UserError, progress, run
from diffit.features import Features
from diffit.frechet import Gaussian, Moments
from diffit.protocols import NEEDS, PROTOCOLS

AGAIN = "delete it and run the same command again: its rule makes it anew"
ROWS_SEED = 0
_FACTS = ("protocol", "network_sha256", "resize", "precision", "gaps", "width", "size", "images")


@dataclass(frozen=True)
class Reference:
    """The distribution of real images' features, and as many of the features themselves as the protocol needs."""

    facts: (
        dict  # protocol, network_sha256, resize, precision, gaps, width, size; dataset, count; images: whose features
    )
    gaussians: dict[str, Gaussian]  # by array: features, and spatial where the protocol has sFID
    rows: np.ndarray  # float32 [m, d], m ≤ count
    labels: np.ndarray  # int64 [m]

    @property
    def complete(self) -> bool:
        """Whether ``rows`` are all of the data set."""
        return len(self.rows) == self.facts["count"]

    @classmethod
    def of(cls, features: Features, dataset: str | None = None, archive: Path | None = None) -> "Reference":
        """The reference that ``features`` make, of the data set ``dataset`` or of what was measured.

        The statistics are taken piece by piece in float64, so that a data set of any size passes through. With the
        ``archive`` of a published batch they are the published ones, and the rows those of its images. Raises
        :class:`UserError` where the features are damaged.
        """
        protocol = PROTOCOLS[features.manifest["protocol"]]
        facts = {name: features.manifest[name] for name in _FACTS}
        facts |= {"dataset": dataset or facts["images"].get("dataset"), "count": len(features)}
        kept = np.sort(draws.split(ROWS_SEED, len(features))[: protocol.reference_images])
        rows, moments = [], Moments.empty(facts["width"])
        first = 0
        for piece in progress(features.pieces("features"), desc="reference", total=len(features.manifest["pieces"])):
            here = kept[(kept >= first) & (kept < first + len(piece))] - first
            rows.append(piece[here])
            first += len(piece)
            if not archive:
                moments.add(piece)
        if archive:
            stored = files.read_json(archive / "archive.json", AGAIN)
            count = stored["statistics_images"]
            gaussians = {name: Gaussian(*pair, count) for name, pair in published.statistics(archive).items()}
            facts |= {"count": count, "published_sha256": stored["sha256"]}
        else:
            gaussians = {"features": moments.gaussian()}
            for array in {NEEDS[name] for name in protocol.metrics if NEEDS.get(name) == "spatial"}:
                if "sfid" not in facts["gaps"]:
                    gaussians[array] = _gaussian(features, array)
        return cls(facts, gaussians, np.concatenate(rows), features.array("labels")[kept])._exact()

    def write(self, path: Path) -> dict:
        """Write the reference to ``path`` with its sidecar; returns the sidecar."""
        statistics = {}
        for array, gaussian in self.gaussians.items():
            statistics |= {f"{array}_mean": gaussian.mean, f"{array}_covariance": gaussian.covariance}
        with files.atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=self.rows, labels=self.labels, **statistics)
        return files.seal(path, **self.facts)

    @classmethod
    def read(cls, path: Path) -> "Reference":
        """A written reference, verified; its ``facts`` have the file's ``sha256`` too.

        Raises :class:`UserError` where it is missing, damaged or something else.
        """
        facts = files.verify(path, AGAIN)
        if "protocol" not in facts or "width" not in facts:
            raise UserError(f"{path} is no reference; make it with python -m diffit.reference")
        with np.load(path, allow_pickle=False) as stored:
            arrays = [name.removesuffix("_mean") for name in stored if name.endswith("_mean")]
            gaussians = {
                array: Gaussian(stored[f"{array}_mean"], stored[f"{array}_covariance"], facts["count"])
                for array in arrays
            }
            return cls(facts, gaussians, stored["rows"], stored["labels"])._exact()

    def _exact(self) -> "Reference":
        """With fewer images than features, the Gaussian of the features themselves, whose distances are more exact."""
        if self.complete and len(self.rows) < self.facts["width"]:
            self.gaussians["features"] = Gaussian.of(self.rows)
        return self


def _gaussian(features: Features, array: str) -> Gaussian:
    moments = None
    for piece in progress(features.pieces(array), desc=array, total=len(features.manifest["pieces"])):
        moments = moments or Moments.empty(piece.shape[1])
        moments.add(piece)
    return moments.gaussian()


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("features", type=Path, help="folder of the real images' features")
    parser.add_argument("out", type=Path, help="the npz file to write")
    parser.add_argument("--dataset", required=True, help="the data set that it stands for")
    parser.add_argument("--published", type=Path, help="the archive of the published batch that was measured")
    arguments = parser.parse_args()
    Reference.of(Features(arguments.features), arguments.dataset, arguments.published).write(arguments.out)


if __name__ == "__main__":
    run(main)
