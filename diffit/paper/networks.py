"""The networks that tables and figures show, from the slice of the configuration that defines each."""

from diffit.training.task import expected_network


def expand_network(described: dict) -> dict:
    """A network as :func:`diffit.nets.build` takes it, from the result of :meth:`diffit.paper.scale.Scale.network`."""
    (run,) = described["runs"].values()
    return expected_network(described, run)
