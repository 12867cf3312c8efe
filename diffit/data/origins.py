"""Where a data source is fetched from, as preflight tries it before a job does."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Included:
    """Part of an installed package."""

    package: str


@dataclass(frozen=True)
class Local:
    """Files that the user names under ``path:``; they cannot be downloaded."""


@dataclass(frozen=True)
class Address:
    """A file behind an address."""

    url: str


@dataclass(frozen=True)
class Hub:
    """A repository of the Hugging Face hub at a revision; ``kind`` is ``model`` or ``dataset``."""

    repository: str
    revision: str | None
    kind: str


Origin = Included | Local | Address | Hub
