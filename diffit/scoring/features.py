"""What ``diffit.measure`` wrote of a set of images: arrays with one row an image, in shards under one manifest."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffit.cli import UserError
from diffit.store import files
from diffit.store.manifest import read_manifest


class Features:
    """The arrays of one folder, read shard by shard when they are asked for, each shard verified before.

    ``features`` float32 [n, d], ``labels`` int64 [n], and what else the protocol takes, ``spatial`` and ``logits``.
    Raises :class:`UserError` for a folder that holds no features.
    """

    def __init__(self, folder: Path):
        self.folder, self.manifest = folder, read_manifest(folder)
        if "network_sha256" not in self.manifest:
            raise UserError(f"{folder} holds images and no features; measure them first with python -m diffit.measure")
        self._verified: set[str] = set()

    def __len__(self) -> int:
        return self.manifest["count"]

    def shards(self, name: str) -> Iterator[np.ndarray]:
        """One array of each shard, in order.

        Raises :class:`UserError` for a shard that is missing, damaged, another, not finite or of the wrong shape.
        """
        for entry in self.manifest["shards"]:
            yield self._read(self.folder / entry["file"], entry, name)

    def array(self, name: str) -> np.ndarray:
        """One array of all images."""
        return np.concatenate(list(self.shards(name)))

    def _read(self, path: Path, entry: dict, name: str) -> np.ndarray:
        if path.name not in self._verified:
            if files.verify(path, files.REMAKE_SHARD)["sha256"] != entry["sha256"]:
                raise UserError(
                    f"{path} is not the shard that manifest.json names (another sha256); measure its images again"
                )
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
