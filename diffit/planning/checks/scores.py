"""Check whether all scores of a goal can be computed with the configured Inception network."""

from pathlib import Path

from diffit.planning.checks.result import CheckResult, warning
from diffit.planning.dry_run import Job
from diffit.scoring.inception_weights import NVIDIA_SHA256, NVIDIA_URL, SHA256
from diffit.scoring.metrics import metrics_of
from diffit.store import files


def check(jobs: list[Job], config: dict) -> list[CheckResult]:
    """A warning if the jobs score under a protocol with the Inception Score and the network has no classes."""
    protocols = {job.wildcards["protocol"] for job in jobs if job.rule in ("measure", "score")}
    affected = sorted(name for name in protocols if any(metric.takes == "logits" for metric in metrics_of(name)))
    if not affected or _sha256(config["inception"]) != SHA256:
        return []
    return [
        warning(
            f"the Inception Score will be missing under {' and '.join(affected)}: the wheel's Inception network has no "
            "classes",
            f"to have it, set inception.url to {NVIDIA_URL}, or inception.path to a copy of that file; a later change "
            "measures all images again",
        )
    ]


def _sha256(described: dict) -> str | None:
    """The sha256 of the configured network; None if its file is missing, which another check reports."""
    if described["path"]:
        path = Path(described["path"]).expanduser()
        return files.sha256(path) if path.is_file() else None
    return described["sha256"] or (NVIDIA_SHA256 if described.get("url") else SHA256)
