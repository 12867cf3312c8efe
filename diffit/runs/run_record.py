"""What a run is, and each start of its training."""

import logging
import time
from pathlib import Path

from diffit.config.changes import refuse_changes
from diffit.slurm.environment import accounting_id
from diffit.store import files
from diffit.store.fingerprint import commit, fingerprint

log = logging.getLogger("diffit")


def claim(folder: Path, identity: dict) -> None:
    """Record what a run is, or check that it still is that.

    Raises :class:`UserError` with the differing keys when the run began with another configuration or other data.
    """
    path = folder / "run.json"
    if not path.exists():
        files.write_json(path, identity)
        return
    before = files.read_json(path, remedy=f"restore it, or start over by deleting {folder.parent}")
    refuse_changes(folder.parent, before, identity)


def code_of(identity: dict) -> str:
    """The fingerprint of the code that trains a run."""
    net, process = identity["net"]["kind"], identity["process"]["kind"]
    return fingerprint(["diffit.train", f"diffit.nets.{net}", f"diffit.process.{process}"])


def begin_leg(folder: Path, identity: dict) -> None:
    """Record with which code, and in which SLURM job, this leg of the run goes on; say so where the code is another
    than that of the leg before.
    """
    code = code_of(identity)
    path = folder / "legs.json"
    legs = files.read_json(path, remedy="restore it")["legs"] if path.exists() else []
    if legs and legs[-1]["code"] != code:
        log.warning("warning: the code of %s changed since its last leg (%s → %s)", folder, legs[-1]["code"], code)
    at, job = time.strftime("%FT%TZ", time.gmtime()), accounting_id()
    files.write_json(path, {"legs": [*legs, {"code": code, "commit": commit(), "at": at, "job": job}]})
