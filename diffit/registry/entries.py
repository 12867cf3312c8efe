"""A registry: the entries of one kind of thing by their names."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TypeVar

from diffit.cli import UserError, nearest


class Named(Protocol):
    """Anything with a name."""

    name: str


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry]):
    """Entries by name, in the order in which they were registered.

    Args:
        what: what an entry is, for error messages: ``"sampler"``.
        entries: the entries; names must differ.
    """

    def __init__(self, what: str, *entries: Entry):
        self.what = what
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            self.register(entry)

    def register(self, entry: Entry) -> None:
        """Add an entry under its name."""
        assert entry.name not in self._entries, f"there are two entries of the name {entry.name}"
        self._entries[entry.name] = entry

    @contextmanager
    def extended(self, *entries: Entry) -> Iterator[None]:
        """Have further entries for a while, as tests do."""
        before = dict(self._entries)
        try:
            for entry in entries:
                self.register(entry)
            yield
        finally:
            self._entries = before

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name. Raises :class:`UserError`, which is not a ``KeyError``, with the nearest name."""
        if name not in self._entries:
            raise UserError(f"there is no {self.what} {name!r}; {nearest(str(name), self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str, fallback: Entry | None = None) -> Entry | None:
        """The entry of a name, or the fallback."""
        return self._entries.get(name, fallback)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
