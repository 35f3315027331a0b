"""Where measurements and decision events are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

FieldValue = float | int | str | bool


@dataclass(frozen=True, slots=True)
class Point:
    measurement: str  # [a-z_]+
    wall_s: float  # seconds since the epoch, kept to the microsecond at least
    fields: Mapping[str, FieldValue]  # at least one; names end with their unit
    tags: Mapping[str, str] = field(default_factory=dict)


class TelemetryStore(Protocol):
    def write(self, points: Sequence[Point]) -> None:
        """Accept points. An outage of the store is not the caller's problem: points wait in a bounded spool.
        The same measurement, tags and time written twice is one point (fields merge, the last one wins)."""
        ...

    def read(
        self,
        measurement: str,
        *,
        since_wall_s: float,
        until_wall_s: float | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Point]:
        """Points in time order, since <= time < until, whose tags include `tags`; with `limit` the newest ones.
        Raise Unavailable when the store cannot be read."""
        ...

    def pending(self) -> int:
        """Points accepted but not yet safe in the store itself."""
        ...

    def dropped(self) -> int:
        """Points lost because the spool was full, since start."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is pending; False if time ran out."""
        ...

    def close(self) -> None:
        """Flush what can be flushed, keep the rest on disk for the next start."""
        ...
