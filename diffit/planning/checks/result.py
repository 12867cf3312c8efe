"""The result of one check: a sentence and, if something is not right, what to do."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckResult:
    """One result; ``level`` is ``ok``, ``warning`` or ``wrong``."""

    level: str
    what: str
    way_out: str = ""

    def __str__(self) -> str:
        way_out = f"\n         → {self.way_out}" if self.way_out else ""
        return f"{self.level:7}  {self.what}{way_out}"


def ok(what: str) -> CheckResult:
    return CheckResult("ok", what)


def warning(what: str, way_out: str) -> CheckResult:
    return CheckResult("warning", what, way_out)


def wrong(what: str, way_out: str) -> CheckResult:
    return CheckResult("wrong", what, way_out)


def summary(results: Sequence[CheckResult]) -> str:
    """The number of results of each level."""
    counts = {level: sum(result.level == level for result in results) for level in ("ok", "warning", "wrong")}
    return f"{counts['ok']} ok, {counts['warning']} to know of, {counts['wrong']} wrong"
