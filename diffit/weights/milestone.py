"""Milestones: the averaged weights of a run after a number of training images, with all facts needed to use them.

results/runs/{run}/{kimg}/ema.safetensors   weights of the network, float32
results/runs/{run}/{kimg}/config.json       net, process, data, seed, images trained, commit, and the weights' sha256
"""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save
from torch import nn

from diffit.cli import UserError
from diffit.nets import build
from diffit.store import files

WEIGHTS, RECORD = "ema.safetensors", "config.json"


def write(folder: Path, net: nn.Module, facts: dict) -> None:
    """Write the weights of ``net``, then the record with ``facts``. A milestone with a record is complete."""
    with files.atomic(folder / WEIGHTS) as temporary:
        values = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
        temporary.write_bytes(save(values))
    weights = folder / WEIGHTS
    files.write_json(folder / RECORD, {**facts, "sha256": files.sha256(weights), "bytes": weights.stat().st_size})


def publish(source: Path, target: Path) -> None:
    """Copy the milestone in ``source`` to ``target``, with its modification times.

    Copies instead of links, so that damage to one does not affect the other. Raises :class:`UserError` if ``source`` is
    damaged.
    """
    remedy = "restore it from a backup, or set a later milestone"
    _verified(source, remedy)
    target.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, RECORD):
        with files.atomic(target / name) as temporary:
            shutil.copy2(source / name, temporary)


def exists(folder: Path) -> bool:
    """Whether ``folder`` holds a complete milestone."""
    return (folder / RECORD).exists()


def load(folder: Path) -> tuple[nn.Module, dict]:
    """The network with its weights, in evaluation mode on the CPU, and the record.

    Raises :class:`UserError` for a missing file, weights with another sha256 than in the record, and weights that do
    not match the network.
    """
    remedy = f"delete {folder} and run the same command again"
    record, weights = _verified(folder, remedy), folder / WEIGHTS
    net = build(record["net"])
    missing, unexpected = net.load_state_dict(load_file(weights), strict=False)
    if missing or unexpected:
        raise UserError(f"{weights} does not match its network: missing {missing}, unexpected {unexpected}; {remedy}")
    return net.eval().requires_grad_(False), record


def _verified(folder: Path, remedy: str) -> dict:
    record = files.read_json(folder / RECORD, remedy)
    weights = folder / WEIGHTS
    if not weights.exists() or files.sha256(weights) != record["sha256"]:
        raise UserError(f"{weights} is missing or damaged ({RECORD} records another sha256); {remedy}")
    return record
