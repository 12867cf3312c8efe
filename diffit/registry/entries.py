"""A registry: the entries of one kind, such as all samplers, by name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TypeVar

from diffit.cli import UserError, suggestion


class Named(Protocol):
    """Anything with a name."""

    name: str


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry]):
    """Entries by name, in the order of their registration.

    Args:
        what: the kind of the entries for error messages, for example ``"sampler"``.
        entries: the first entries; all names must differ.
    """

    def __init__(self, what: str, *entries: Entry):
        self.what = what
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            self.register(entry)

    def register(self, entry: Entry) -> None:
        """Add an entry under its name."""
        assert entry.name not in self._entries, f"{self.what} {entry.name!r} is already registered"
        self._entries[entry.name] = entry

    @contextmanager
    def extended(self, *entries: Entry) -> Iterator[None]:
        """Context with additional entries; tests use it."""
        before = dict(self._entries)
        try:
            for entry in entries:
                self.register(entry)
            yield
        finally:
            self._entries = before

    def __getitem__(self, name: str) -> Entry:
        """The entry with this name. Raises :class:`UserError`, not ``KeyError``, and suggests a similar name."""
        if name not in self._entries:
            raise UserError(f"there is no {self.what} {name!r}; {suggestion(str(name), self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str, fallback: Entry | None = None) -> Entry | None:
        """The entry with this name, or ``fallback`` for an unknown name."""
        return self._entries.get(name, fallback)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
