"""Files of the Hugging Face hub, through the same door: their sizes and hashes come from the hub's list of files.

``HF_ENDPOINT`` names another hub or a mirror, ``HF_TOKEN`` (or ``hf auth login``) identifies the user. Files in the
cache of the hub's own client (``HF_HOME``) are used where they lie.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import requests
from requests.auth import AuthBase

from diffit.cli import UserError
from diffit.fetch.policy import TransferError, persevere, timeout
from diffit.fetch.reasons import answer, may_recover, reason
from diffit.fetch.transfer import Download, fetch, fetch_all

FOLDER = ".downloads"  # a name that no run and no VAE can have


@dataclass(frozen=True)
class Repository:
    """A repository of the hub.

    Args:
        name: ``owner/name``.
        revision: commit, branch or tag; None is the branch ``main``.
        instead: the last part of error messages: how to do without the hub.
        kind: ``model`` or ``dataset``.
    """

    name: str
    revision: str | None
    instead: str
    kind: str = "model"

    @property
    def denied(self) -> str:
        """What to do if the hub denies access."""
        return (
            f"accept the licence on the page of {self.name} on the Hugging Face hub and set HF_TOKEN to your token, "
            f"or {self.instead}"
        )


@dataclass(frozen=True)
class Entry:
    """A file of a repository: its path there, its bytes and its hash, as :class:`Download` takes them."""

    path: str
    size: int
    digest: str


class _Token(AuthBase):
    """The user's token. As an object and not as a header, it has precedence over ~/.netrc."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def has_token() -> bool:
    """Whether the user has a token of the hub."""
    return _auth() is not None


def files(repository: Repository, names: Sequence[str], downloads: Path) -> tuple[str, list[Path]]:
    """The commit of a repository's revision, and the paths of the files with these names at that commit.

    Files that are missing in the cache of the hub's own client are downloaded into ``downloads`` and stay there. Raises
    :class:`UserError`.
    """
    if paths := _cached(repository, names):
        return paths[0].parents[len(Path(names[0]).parts) - 1].name, paths  # the cache names folders by commit
    commit, found = listing(repository)
    entries = {entry.path: entry for entry in found}
    if missing := [name for name in names if name not in entries]:
        raise UserError(f"{repository.name} has no file {missing[0]} at {commit}; {repository.instead}")
    folder = downloads / repository.name.replace("/", "--") / commit
    return commit, download(repository, commit, [entries[name] for name in names], folder)


def listing(repository: Repository) -> tuple[str, list[Entry]]:
    """The commit of a repository's revision and its files at that commit. Raises :class:`UserError`."""
    base, revision = f"{_endpoint()}/api/{repository.kind}s/{repository.name}", repository.revision or "main"
    if not re.fullmatch("[0-9a-f]{40}", revision):
        revision = _json(f"{base}/revision/{quote(revision, safe='')}", repository)[0]["sha"]
    entries, url = [], f"{base}/tree/{revision}?recursive=true"
    while url:
        page, url = _json(url, repository)
        entries += [_entry(found) for found in page if found["type"] == "file"]
    return revision, entries


def download(repository: Repository, commit: str, entries: Iterable[Entry], folder: Path) -> list[Path]:
    """Download files of a repository into a folder, each under its path in the repository; return where they are.

    Files that are there are not downloaded again. Raises :class:`UserError`.
    """
    prefix = "datasets/" if repository.kind == "dataset" else ""
    base, auth = f"{_endpoint()}/{prefix}{repository.name}/resolve/{commit}", _auth()
    downloads = [
        Download(
            f"{base}/{quote(entry.path)}",
            folder / entry.path,
            f"run the same command again, put the file at {folder / entry.path}, or {repository.instead}",
            entry.size,
            entry.digest,
            auth,
            repository.denied,
            trusted=repository.kind == "dataset",  # the hash of 150 GB takes half an hour
        )
        for entry in entries
    ]
    if len(downloads) == 1:
        fetch(downloads[0])
    else:
        fetch_all(downloads, repository.name)
    return [one.target for one in downloads]


def _cached(repository: Repository, names: Sequence[str]) -> list[Path] | None:
    """The files with these names in the cache of the hub's own client, None unless all are there."""
    from huggingface_hub import try_to_load_from_cache  # here, because most stages need no hub

    where = {"revision": repository.revision, "repo_type": repository.kind}
    found = [try_to_load_from_cache(repository.name, name, **where) for name in names]
    return [Path(path) for path in found] if all(isinstance(path, str) for path in found) else None


def _entry(found: dict) -> Entry:
    """Files in LFS have a sha256; small ones have git's hash of their content."""
    lfs = found.get("lfs")
    if ".." in Path(found["path"]).parts or Path(found["path"]).is_absolute():
        raise UserError(f"the Hugging Face hub lists a file {found['path']}; use another repository")
    return Entry(found["path"], found["size"], f"sha256:{lfs['oid']}" if lfs else f"git:{found['oid']}")


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _auth() -> AuthBase | None:
    from huggingface_hub import get_token

    token = get_token()
    return _Token(token) if token else None


def _json(url: str, repository: Repository) -> tuple[list | dict, str | None]:
    """The JSON value at an address of the hub, and the address of the next page."""
    from huggingface_hub import constants

    def attempt() -> tuple[list | dict, str | None]:
        if constants.HF_HUB_OFFLINE:
            raise TransferError("HF_HUB_OFFLINE is set", final=True)
        try:
            response = requests.get(url, auth=_auth(), timeout=timeout())
            if not response.ok:
                final = not may_recover(response.status_code)
                raise TransferError(answer(response), final=final, status=response.status_code)
            return response.json(), response.links.get("next", {}).get("url")
        except requests.RequestException as error:
            raise TransferError(reason(error)) from error

    name = f"the list of files of {repository.name}"
    return persevere(attempt, name, url, repository.instead, repository.denied)
