"""reference: what samples are compared with under a protocol, made once of a data set's features for all runs.

    python -m diffit.scoring.reference FEATURES OUT.npz --dataset NAME [--published ARCHIVE]

FEATURES is the folder of features of the data set, or of one that stands for it; with ``--published``, ADM's reference
batch, whose archive holds the statistics of the whole training set.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffit.cli import Parser, UserError, progress, run_command
from diffit.numerics import rng
from diffit.scoring.features import Features
from diffit.scoring.frechet import Gaussian, Moments
from diffit.scoring.metrics import metrics_of
from diffit.scoring.protocols import PROTOCOLS
from diffit.store import adm_npz, files

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
    def count(self) -> int:
        """The number of real images behind the Gaussians."""
        return self.facts["count"]

    @property
    def complete(self) -> bool:
        """Whether ``rows`` are all of the data set."""
        return len(self.rows) == self.facts["count"]

    @classmethod
    def of(cls, features: Features, dataset: str | None = None, archive: Path | None = None) -> "Reference":
        """The reference that ``features`` make, of the data set ``dataset`` or of what was measured.

        The statistics are taken shard by shard in float64, so that a data set of any size passes through. With the
        ``archive`` of a published batch they are the published ones, and the rows those of its images. Raises
        :class:`UserError` where the features are damaged.
        """
        protocol = PROTOCOLS[features.manifest["protocol"]]
        facts = {name: features.manifest[name] for name in _FACTS}
        facts |= {"dataset": dataset or facts["images"].get("dataset"), "count": len(features)}
        kept = np.sort(rng.split(ROWS_SEED, len(features))[: protocol.reference_images])
        rows, moments = [], Moments.empty(facts["width"])
        first = 0
        for shard in progress(features.shards("features"), desc="reference", total=len(features.manifest["shards"])):
            here = kept[(kept >= first) & (kept < first + len(shard))] - first
            rows.append(shard[here])
            first += len(shard)
            if not archive:
                moments.add(shard)
        if archive:
            stored = files.read_json(archive / "archive.json", AGAIN)
            count = stored["statistics_images"]
            gaussians = {name: Gaussian(*pair, count) for name, pair in adm_npz.statistics(archive).items()}
            facts |= {"count": count, "published_sha256": stored["sha256"]}
        else:
            gaussians = {"features": moments.gaussian()}
            for metric in metrics_of(protocol.name):
                if metric.gaussian and metric.takes not in gaussians and metric.name not in facts["gaps"]:
                    gaussians[metric.takes] = _gaussian(features, metric.takes)
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
            raise UserError(f"{path} is no reference; make it with python -m diffit.scoring.reference")
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
    for shard in progress(features.shards(array), desc=array, total=len(features.manifest["shards"])):
        moments = moments or Moments.empty(shard.shape[1])
        moments.add(shard)
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
    run_command(main)
