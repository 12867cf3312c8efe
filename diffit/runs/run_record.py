"""The identity of a run (run.json) and its legs (legs.json). A leg is one start of the training."""

import logging
import time
from pathlib import Path

from diffit.config.changes import refuse_changes
from diffit.nets import NETWORKS
from diffit.process import PROCESSES
from diffit.slurm.environment import accounting_id
from diffit.store import files
from diffit.store.fingerprint import commit, fingerprint

log = logging.getLogger("diffit")


def record_identity(folder: Path, identity: dict) -> None:
    """Record the identity of a new run.

    Raises :class:`UserError` with the keys that differ if the run began with another configuration or other data.
    """
    path = folder / "run.json"
    if not path.exists():
        files.write_json(path, identity)
        return
    before = files.read_json(path, remedy=f"restore it, or start over by deleting {folder.parent}")
    refuse_changes(folder.parent, before, identity)


def code_fingerprint(identity: dict) -> str:
    """Return the fingerprint of the code that trains a run."""
    net, process = NETWORKS[identity["net"]["kind"]], PROCESSES[identity["process"]["kind"]]
    return fingerprint(["diffit.train", net.module, process.module])


def begin_leg(folder: Path, identity: dict) -> None:
    """Record the code, the time and the SLURM job of a new leg; warn if the code differs from that of the last leg."""
    code = code_fingerprint(identity)
    path = folder / "legs.json"
    legs = files.read_json(path, remedy="restore it")["legs"] if path.exists() else []
    if legs and legs[-1]["code"] != code:
        log.warning("warning: the code of %s changed since its last leg (%s → %s)", folder, legs[-1]["code"], code)
    leg = {
        "code": code,
        "commit": commit(),
        "at": time.strftime("%FT%TZ", time.gmtime()),
        "job": accounting_id(),
    }
    files.write_json(path, {"legs": [*legs, leg]})
