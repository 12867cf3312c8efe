"""What a check found: one sentence, and the way out where something is not as it should be."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """``level`` is ok, warning or wrong."""

    level: str
    what: str
    way_out: str = ""

    def __str__(self) -> str:
        way_out = f"\n         → {self.way_out}" if self.way_out else ""
        return f"{self.level:7}  {self.what}{way_out}"


def ok(what: str) -> Finding:
    return Finding("ok", what)


def warning(what: str, way_out: str) -> Finding:
    return Finding("warning", what, way_out)


def wrong(what: str, way_out: str) -> Finding:
    return Finding("wrong", what, way_out)


def summary(findings: Sequence[Finding]) -> str:
    """How many of each level there are."""
    counts = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warning", "wrong")}
    return f"{counts['ok']} ok, {counts['warning']} to know of, {counts['wrong']} wrong"
