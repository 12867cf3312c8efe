"""Folders of features, written by the measure stage: npz shards with one row per image, and a manifest."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffit.cli import UserError
from diffit.store import files
from diffit.store.manifest import read_manifest


class Features:
    """The arrays of a folder of features. Each shard is verified before it is read for the first time.

    Arrays: ``features`` float32 [n, d], ``labels`` int64 [n], and depending on the protocol ``spatial`` and ``logits``.
    Raises :class:`UserError` if the folder holds no features.
    """

    def __init__(self, folder: Path):
        self.folder, self.manifest = folder, read_manifest(folder)
        if "network_sha256" not in self.manifest:
            raise UserError(f"{folder} holds images, not features; measure them first with python -m diffit.measure")
        self._verified: set[str] = set()

    def __len__(self) -> int:
        return self.manifest["count"]

    def shards(self, name: str) -> Iterator[np.ndarray]:
        """Yield one array of each shard, in order.

        Raises :class:`UserError` for a shard that is missing or damaged, has another sha256 than its entry in the
        manifest, or holds an array that is absent, of the wrong shape or not finite.
        """
        for entry in self.manifest["shards"]:
            yield self._read(self.folder / entry["file"], entry, name)

    def array(self, name: str) -> np.ndarray:
        """One array for all images."""
        return np.concatenate(list(self.shards(name)))

    def _read(self, path: Path, entry: dict, name: str) -> np.ndarray:
        if path.name not in self._verified:
            if files.verify(path, files.REMAKE_SHARD)["sha256"] != entry["sha256"]:
                raise UserError(f"{path} has another sha256 than its entry in manifest.json; measure its images again")
            self._verified.add(path.name)
        with np.load(path, allow_pickle=False) as stored:
            if name not in stored:
                raise UserError(f"{path} holds no {name}; measure its images again for {self.manifest['protocol']}")
            values = stored[name]
        expected = (entry["count"], self.manifest["width"]) if name == "features" else (entry["count"],)
        if values.shape[: len(expected)] != expected:
            raise UserError(
                f"{path} holds {name} {values.shape} instead of {expected}; delete it and measure its images again"
            )
        if not np.isfinite(values).all():
            raise UserError(f"{path} holds {name} that are NaN or infinite; delete it and measure its images again")
        return values
