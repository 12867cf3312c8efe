"""Folders of features, as the measure stage leaves them."""

from pathlib import Path

import numpy as np

from diffit.store import files
from diffit.store.manifest import gather

WIDTH = 64
FACTS = {
    "protocol": "clean", "network_sha256": "n", "precision": "float32", "resize": "r", "gaps": {}, "width": WIDTH,
    "size": [8, 8],
}  # fmt: skip


def features(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32) + 0.1 * seed


def write(folder: Path, values: np.ndarray, shards: int = 1, labels=None, arrays=None, **facts) -> Path:
    folder.mkdir(parents=True)
    labels = np.zeros(len(values), np.int64) if labels is None else labels
    facts = {**FACTS, "images": {"dataset": folder.name, "count": len(values), "content_sha256": "c"}, **facts}
    arrays = {"features": values, "labels": labels, **(arrays or {})}
    for k, rows in enumerate(np.array_split(np.arange(len(values)), shards)):
        path = folder / f"{k}-of-{shards}.npz"
        np.savez(path, **{name: array[rows] for name, array in arrays.items()})
        files.seal(path, count=len(rows), **facts)
    gather(folder, shards)
    return folder
