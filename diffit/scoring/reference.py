"""reference: the statistics of real images that samples are scored against, made once per data set and protocol.

    python -m diffit.scoring.reference FEATURES OUT.npz --dataset NAME [--published ARCHIVE]

FEATURES is the folder of features of the data set or of its substitute (``references`` in the config). With
``--published``, they are features of ADM's reference batch, whose archive holds statistics of the whole training set.
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

REMEDY = "delete it and run the same command again: its rule makes it again"
ROWS_SEED = 0
_FACTS = ("protocol", "network_sha256", "resize", "precision", "gaps", "width", "size", "images")


@dataclass(frozen=True)
class Reference:
    """Statistics of the features of real images, and the features of as many images as the protocol keeps.

    ``facts`` say how the images were measured (protocol, network_sha256, resize, precision, gaps, width, size), which
    images (``images``, a manifest), for which ``dataset``, and the number of images behind the statistics (``count``).
    """

    facts: dict
    gaussians: dict[str, Gaussian]  # by array: features, and spatial if the protocol has sFID
    rows: np.ndarray  # float32 [m, d], m ≤ count
    labels: np.ndarray  # int64 [m]

    def __post_init__(self):
        if self.complete and len(self.rows) < self.facts["width"]:
            # The Gaussian of the features themselves has a root, with which distances are more exact.
            self.gaussians["features"] = Gaussian.of(self.rows)

    @property
    def count(self) -> int:
        """The number of real images behind the Gaussians."""
        return self.facts["count"]

    @property
    def complete(self) -> bool:
        """Whether ``rows`` holds the features of all images."""
        return len(self.rows) == self.count

    @classmethod
    def of(cls, features: Features, dataset: str | None = None, archive: Path | None = None) -> "Reference":
        """Make a reference from features.

        Args:
            features: features of the data set, of its substitute, or of the images of a published batch.
            dataset: name of the data set that the reference is for; by default the one that was measured.
            archive: archive of a published batch, whose statistics are used instead of measured ones.

        Raises :class:`UserError` for damaged features.
        """
        facts = {name: features.manifest[name] for name in _FACTS}
        facts |= {"dataset": dataset or facts["images"].get("dataset"), "count": len(features)}
        kept = np.sort(rng.split(ROWS_SEED, len(features))[: PROTOCOLS[facts["protocol"]].reference_images])
        if archive:
            record = files.read_json(archive / "archive.json", REMEDY)
            facts |= {"count": record["statistics_images"], "published_sha256": record["sha256"]}
            statistics = adm_npz.statistics(archive)
            gaussians = {array: Gaussian(*pair, facts["count"]) for array, pair in statistics.items()}
            rows = features.array("features")[kept]
        else:
            rows, gaussians = _measured(features, kept)
        return cls(facts, gaussians, rows, features.array("labels")[kept])

    def write(self, path: Path) -> dict:
        """Write the reference to ``path`` with its sidecar; return the sidecar."""
        statistics = {}
        for array, gaussian in self.gaussians.items():
            statistics |= {f"{array}_mean": gaussian.mean, f"{array}_covariance": gaussian.covariance}
        with files.atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=self.rows, labels=self.labels, **statistics)
        return files.seal(path, **self.facts)

    @classmethod
    def read(cls, path: Path) -> "Reference":
        """Verify and read a reference. Its ``facts`` also hold the ``sha256`` of the file.

        Raises :class:`UserError` if the file is missing, damaged or not a reference.
        """
        facts = files.verify(path, REMEDY)
        if "protocol" not in facts or "width" not in facts:
            raise UserError(f"{path} is not a reference; make one with python -m diffit.scoring.reference")
        with np.load(path, allow_pickle=False) as stored:
            arrays = [name.removesuffix("_mean") for name in stored if name.endswith("_mean")]
            gaussians = {
                array: Gaussian(stored[f"{array}_mean"], stored[f"{array}_covariance"], facts["count"])
                for array in arrays
            }
            return cls(facts, gaussians, stored["rows"], stored["labels"])


def _measured(features: Features, kept: np.ndarray) -> tuple[np.ndarray, dict[str, Gaussian]]:
    """The features of the images ``kept`` (ascending numbers), and the Gaussians of all images by array.

    Reads one shard at a time, so that a data set need not fit into memory.
    """
    manifest = features.manifest
    rows, moments, first = [], Moments.empty(manifest["width"]), 0
    for shard in progress(features.shards("features"), desc="reference", total=len(manifest["shards"])):
        rows.append(shard[kept[(kept >= first) & (kept < first + len(shard))] - first])
        moments.add(shard)
        first += len(shard)
    gaussians = {"features": moments.gaussian()}
    for metric in metrics_of(manifest["protocol"]):
        if metric.gaussian and metric.takes not in gaussians and metric.name not in manifest["gaps"]:
            gaussians[metric.takes] = _gaussian(features, metric.takes)
    return np.concatenate(rows), gaussians


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
    parser.add_argument("--dataset", required=True, help="name of the data set that the reference is for")
    parser.add_argument("--published", type=Path, help="archive of the published batch that was measured")
    arguments = parser.parse_args()
    Reference.of(Features(arguments.features), arguments.dataset, arguments.published).write(arguments.out)


if __name__ == "__main__":
    run_command(main)
