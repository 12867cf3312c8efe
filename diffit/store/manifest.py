"""Folders of numbered shards: ``0-of-4.tar`` … ``3-of-4.tar`` and one ``manifest.json`` for all of them.

    python -m diffit.store.manifest FOLDER --shards N      writes the manifest

Shards may be tars of images or latents, or npz files of features; each has a sidecar (:func:`diffit.store.files.seal`).
"""

import re
import reprlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffit.cli import Parser, UserError, run_command
from diffit.store import files, tars
from diffit.store.files import REMAKE_SHARD

_NAME = "manifest.json"
_SHARD = re.compile(r"(\d+)-of-(\d+)")
_OF_ONE_SHARD = ("file", "sha256", "bytes", "count")
_OF_ONE_JOB = ("made_by", "job")


def shard_number(path: Path) -> tuple[int, int]:
    """``k`` and ``n`` of a file named like ``3-of-64.tar``. Raises :class:`UserError` for any other name."""
    match = _SHARD.fullmatch(path.name.split(".")[0])
    if not match or not int(match[1]) < int(match[2]):
        raise UserError(
            f"{path} is not the name of a shard; name it K-of-N{path.suffix} with K from 0 to N-1, as in 0-of-4"
        )
    return int(match[1]), int(match[2])


def gather(folder: Path, shards: int) -> dict:
    """Write ``folder/manifest.json`` for the sealed shards ``0-of-n`` … ``n-1-of-n`` and return it.

    The manifest holds the facts that all sidecars share. It leaves out what differs between jobs (``made_by`` and the
    SLURM job), so that equal data give equal bytes. Sizes are compared here, hashes when a shard is read. Raises
    :class:`UserError` for a missing shard and for shards with different facts.
    """
    if shards < 1:
        raise UserError(f"--shards {shards} for {folder} is below 1; give the number of shards")
    records = [_sidecar(folder / f"{k}-of-{shards}.json") for k in range(shards)]
    facts = _common_facts(folder, records)
    manifest = {
        "count": sum(record["count"] for record in records),
        "content_sha256": files.sha256_of({"shards": [record["sha256"] for record in records], **facts}),
        **facts,
        "shards": [{name: record[name] for name in _OF_ONE_SHARD} for record in records],
    }
    files.write_json(folder / _NAME, manifest)
    return manifest


def _sidecar(path: Path) -> dict:
    record = files.read_json(path, "run the same command again: its rule makes the missing shard")
    shard = path.with_name(record["file"])
    if not shard.is_file():
        raise UserError(f"{shard} is missing although {path.name} describes it; {REMAKE_SHARD}")
    if shard.stat().st_size != record["bytes"]:
        raise UserError(f"{shard} has {shard.stat().st_size} bytes instead of {record['bytes']}; {REMAKE_SHARD}")
    return record


def _common_facts(folder: Path, records: list[dict]) -> dict:
    facts = [{name: r[name] for name in r if name not in _OF_ONE_SHARD + _OF_ONE_JOB} for r in records]
    for record, other in zip(records, facts, strict=True):
        for name in sorted(facts[0].keys() | other.keys()):
            one, two = facts[0].get(name), other.get(name)
            if one != two:
                raise UserError(
                    f"the shards of {folder} disagree: {name} is {reprlib.repr(one)} in {records[0]['file']} "
                    f"and {reprlib.repr(two)} in {record['file']}; delete the folder and run the command again"
                )
    return facts[0]


def has_manifest(folder: Path) -> bool:
    """Whether a folder has a manifest."""
    return (folder / _NAME).is_file()


def read_manifest(folder: Path) -> dict:
    """The manifest of a folder: ``count``, ``content_sha256``, ``shards`` and the facts that its shards share."""
    return files.read_json(folder / _NAME, f"write it with: python -m diffit.store.manifest '{folder}' --shards N")


def shard_entry(path: Path) -> tuple[dict, dict]:
    """The manifest of the folder of a shard, and the shard's entry in it.

    Raises :class:`UserError` if the folder has no manifest or the manifest does not list the shard.
    """
    manifest = read_manifest(path.parent)
    for entry in manifest["shards"]:
        if entry["file"] == path.name:
            return manifest, entry
    raise UserError(f"{path} is not listed in {path.with_name(_NAME)}; gather the folder again or correct the name")


def shard_paths(folder: Path) -> list[Path]:
    """The shards that the manifest of a folder lists, in order."""
    return [folder / shard["file"] for shard in read_manifest(folder)["shards"]]


def read_images(folder: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield key, image and label of all images of a folder, in order.

    The image is uint8 [H, W, 3], from ``.png`` or ``.npy``; the label is 0 if there is no ``.cls``. Each shard is
    verified against the manifest before its first image is yielded.
    """
    for shard in read_manifest(folder)["shards"]:
        yield from read_shard_images(folder / shard["file"], shard)


def read_shard_images(path: Path, expected: dict) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield the images of one shard like :func:`read_images`; ``expected`` is its entry in the manifest."""
    for key, sample in tars.read_tar(path, expected):
        image = sample.get("png", sample.get("npy"))
        if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"{path} has no uint8 RGB image under the key {key}; {REMAKE_SHARD}")
        yield key, image, sample.get("cls", 0)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the shards")
    parser.add_argument("--shards", type=int, required=True, help="the number of shards")
    arguments = parser.parse_args()
    gather(arguments.folder, arguments.shards)


if __name__ == "__main__":
    run_command(main)
