"""Compare a result with its reference, and keep the largest difference for ``pytest --differences``."""

import numpy as np

largest: dict[str, float] = {}


def assert_close(what: str, ours, reference, tolerance: float) -> None:
    """Fail if the largest |ours − reference| is not below ``tolerance`` times the largest |reference|.

    ``what`` names the comparison; comparisons of one name share a row, which shows the largest of their differences.
    """
    ours, reference = np.asarray(ours, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    assert ours.shape == reference.shape, f"{what}: {ours.shape} against {reference.shape}"
    difference = np.abs(ours - reference).max() / np.abs(reference).max()
    largest[what] = max(largest.get(what, 0.0), float(difference))
    assert difference < tolerance, f"{what}: {difference:.2e} is not below {tolerance:.0e}"
