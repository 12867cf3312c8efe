"""Check that everything a goal has to download exists and can be reached from here. Nothing is downloaded."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from diffit.data.origins import Address, Hub, Included
from diffit.data.sources import SOURCES
from diffit.fetch import mirrored, printable, reason_unreachable
from diffit.planning.checks.result import CheckResult, ok, wrong
from diffit.planning.dry_run import Job
from diffit.scoring.inception_weights import WHEEL

PATIENCE_SECONDS = 20


def check(jobs: Iterable[Job], config: dict) -> list[CheckResult]:
    """One result per data set, network and VAE that the jobs would download."""
    found = []
    for job in jobs:
        if job.rule == "download":
            found += _check_dataset(job.wildcards["dataset"], config["datasets"])
        elif job.rule == "download_inception":
            found += _check_inception(config["inception"])
        elif job.rule == "vae":
            name = job.wildcards["vae"]
            described = config["vaes"][name]
            found += _check_published(f"VAE {name}", f"vaes.{name}.path", described, described["repository"])
        elif job.rule == "release":
            name = job.wildcards["run"]
            described = config["runs"][name]["weights"]
            found += _check_published(
                f"weights of {name}", f"runs.{name}.weights.path", described, described["repository"]
            )
    return found or [ok("nothing is left to download")]


def _check_dataset(name: str, datasets: dict) -> list[CheckResult]:
    described, key, what = datasets[name], f"datasets.{name}.path", f"data set {name}"
    if described["path"]:
        return _check_local(what, key, described["path"])
    match SOURCES[described["source"]].load().origin(described):
        case Included(package):
            return [ok(f"{what} comes with {package}")]
        case Hub(repository, revision, kind):
            return _check_hub(what, key, repository, revision, kind)
        case Address(url):
            return _check_address(what, key, url)
    return [wrong(f"{what} has no folder", f"set {key} in config.yaml")]


def _check_local(what: str, key: str, path: str) -> list[CheckResult]:
    if Path(path).expanduser().exists():
        return [ok(f"{what} is at {path}")]
    return [wrong(f"{what} is not at {path}", f"put it there, or correct {key} in config.yaml")]


def _check_published(what: str, key: str, described: dict, repository: str) -> list[CheckResult]:
    if described["path"]:
        return _check_local(what, key, described["path"])
    return _check_hub(what, key, repository, described["revision"], "model")


def _check_hub(what: str, key: str, repository: str, revision: str | None, kind: str) -> list[CheckResult]:
    from huggingface_hub import HfApi, get_token  # slow to import, and few goals need it
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    api = HfApi()
    try:
        api.repo_info(repository, revision=revision, repo_type=kind, timeout=PATIENCE_SECONDS)
        api.auth_check(repository, repo_type=kind)
    except (GatedRepoError, RepositoryNotFoundError):
        token = "your token has no access" if get_token() else "HF_TOKEN is not set"
        remedy = "accept its license on the Hugging Face hub and set HF_TOKEN"
        return [wrong(f"{what}: access to {repository} is denied; {token}", remedy)]
    except Exception as error:  # the hub's client passes on any exception of its HTTP library
        return [_out_of_reach(what, key, repository, error)]
    return [ok(f"{what} can be downloaded from {repository}")]


def _check_address(what: str, key: str, address: str) -> list[CheckResult]:
    shown = printable(mirrored(address))
    if reason := reason_unreachable(mirrored(address)):
        return [_out_of_reach(what, key, shown, reason)]
    return [ok(f"{what} can be downloaded from {shown}")]


def _check_inception(described: dict) -> list[CheckResult]:
    what, key = "the Inception network", "inception.path"
    if described["path"]:
        return _check_local(what, key, described["path"])
    if described.get("url"):
        return _check_address(what, key, described["url"])
    name, _, version = WHEEL.partition("==")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "index", "versions", name]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE_SECONDS)
    except subprocess.TimeoutExpired as error:
        return [_out_of_reach(what, key, "the package index", error)]
    if version in ended.stdout:
        return [ok(f"{what} can be downloaded from the package index")]
    reason = (ended.stderr.strip().splitlines() or ["no such version"])[-1]
    return [_out_of_reach(what, key, "the package index", reason)]


def _out_of_reach(what: str, key: str, where: str, reason: object) -> CheckResult:
    first = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    remedy = f"run the workflow where it has internet access, or set {key} in config.yaml to a local copy"
    return wrong(f"{what} cannot be downloaded from {where}: {first}", remedy)
