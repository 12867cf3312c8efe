"""The result of one check: a sentence and, if something is not right, what to do."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckResult:
    """One result; ``level`` is ``ok``, ``warning`` or ``wrong``."""

    level: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"\n         → {self.remedy}" if self.remedy else ""
        return f"{self.level:7}  {self.what}{remedy}"


def ok(what: str) -> CheckResult:
    return CheckResult("ok", what)


def warning(what: str, remedy: str) -> CheckResult:
    return CheckResult("warning", what, remedy)


def wrong(what: str, remedy: str) -> CheckResult:
    return CheckResult("wrong", what, remedy)


def summary(results: Sequence[CheckResult]) -> str:
    """The number of results of each level."""
    counts = {level: sum(result.level == level for result in results) for level in ("ok", "warning", "wrong")}
    return f"{counts['ok']} ok, {counts['warning']} warning{'s' * (counts['warning'] != 1)}, {counts['wrong']} wrong"
