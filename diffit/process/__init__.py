"""The diffusion processes by the name that ``process.kind`` has in the configuration."""

from diffit.cli import UserError
from diffit.process.ddpm import DDPM
from diffit.process.edm import EDM
from diffit.process.ve import VE
from diffit.process.vp import VP

PROCESSES = {"edm": EDM, "vp": VP, "ve": VE, "ddpm": DDPM}


def build(spec: dict) -> EDM | DDPM:
    """A process from its description: ``kind`` and its fields. Raises :class:`UserError` for what it cannot be."""
    fields = dict(spec)
    kind = fields.pop("kind")
    if kind not in PROCESSES:
        raise UserError(f"process.kind is {kind!r}; there are: {', '.join(PROCESSES)}")
    try:
        return PROCESSES[kind](**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"process: {error}") from None
