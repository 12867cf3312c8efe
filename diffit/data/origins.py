"""Origins of data sources. Preflight checks that they are available before any job starts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Included:
    """Part of an installed Python package."""

    package: str


@dataclass(frozen=True)
class Local:
    """The user's own files, given by ``path:``; they cannot be downloaded."""


@dataclass(frozen=True)
class Address:
    """A file at a URL."""

    url: str


@dataclass(frozen=True)
class Hub:
    """A repository of the Hugging Face hub at a revision (None: the latest); ``kind`` is ``model`` or ``dataset``."""

    repository: str
    revision: str | None
    kind: str


Origin = Included | Local | Address | Hub
