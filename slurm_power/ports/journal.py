"""A small crash-safe list of records: what is written has reached the disk when `write` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

Record = Mapping[str, str | int | float | bool | None]


class Journal(Protocol):
    def load(self) -> list[Record]:
        """All records, oldest first. A torn last record (crash while writing) is left out.
        Raise Unavailable when the file cannot be read."""
        ...

    def write(self, records: Sequence[Record]) -> None:
        """Replace the whole content, atomically and fsynced. Raise Unavailable when the disk refuses;
        the old content is then still there."""
        ...
