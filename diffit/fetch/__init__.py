"""The one door for downloads: time-outs, retries, resumption, and sizes and hashes that are checked."""

from diffit.fetch.archives import archive
from diffit.fetch.policy import mirrored, printable
from diffit.fetch.transfer import Download, fetch, fetch_all, reason_unreachable

__all__ = ["Download", "archive", "fetch", "fetch_all", "mirrored", "printable", "reason_unreachable"]
