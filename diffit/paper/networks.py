"""The networks that tables and figures show, from the slice of the configuration that defines each."""

from diffit.training.task import expected_network

# The schema of this slice; the configuration has been validated before it was cut.
_RUN = {"type": "object", "required": ["dataset", "vae", "net", "process"]}
_ENTRIES = {"type": "object", "additionalProperties": {"type": "object"}}
NETWORK = {
    "type": "object",
    "additionalProperties": False,
    "required": ["runs", "datasets", "vaes"],
    "properties": {
        "runs": {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": _RUN},
        "datasets": _ENTRIES,
        "vaes": _ENTRIES,
    },
}


def expand_network(described: dict) -> dict:
    """A network as :func:`diffit.nets.build` takes it, from the result of :meth:`diffit.paper.scale.Scale.network`."""
    (run,) = described["runs"].values()
    return expected_network(described, run)
