"""A telemetry store that forgets everything when the process ends; for tests and simulations."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_rules import has_tags, storable
from slurm_power.ports.telemetry_store import Point

_Key = tuple[str, tuple[tuple[str, str], ...], float]


class MemoryStore:
    """`break_off()` and `mend()` make an outage: points wait, at most `max_pending` of them, and reads fail."""

    def __init__(self, *, max_pending: int = 100_000) -> None:
        self._lock = threading.Lock()
        self._points: dict[_Key, Point] = {}
        self._waiting: list[Point] = []
        self._max_pending = max_pending
        self._dropped = 0
        self._broken = False

    def write(self, points: Sequence[Point]) -> None:
        kept = [point for point in map(storable, points) if point is not None]
        with self._lock:
            self._dropped += len(points) - len(kept)
            self._waiting.extend(kept)
            self._deliver()

    def read(
        self,
        measurement: str,
        *,
        since_wall_s: float,
        until_wall_s: float | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Point]:
        until_s = float("inf") if until_wall_s is None else until_wall_s
        with self._lock:
            if self._broken:
                raise Unavailable("memory store: broken off")
            found = [
                point
                for point in self._points.values()
                if point.measurement == measurement
                and since_wall_s <= point.wall_s < until_s
                and has_tags(point.tags, tags or {})
            ]
        found.sort(key=lambda point: point.wall_s)
        return found if limit is None else found[max(0, len(found) - limit) :]

    def pending(self) -> int:
        return len(self._waiting)

    def dropped(self) -> int:
        return self._dropped

    def flush(self, timeout_s: float) -> bool:
        return not self._waiting

    def close(self) -> None:
        pass

    def break_off(self) -> None:
        self._broken = True

    def mend(self) -> None:
        with self._lock:
            self._broken = False
            self._deliver()

    def _deliver(self) -> None:
        if self._broken:
            surplus = max(0, len(self._waiting) - self._max_pending)
            del self._waiting[:surplus]
            self._dropped += surplus
            return
        for point in self._waiting:
            key = (point.measurement, tuple(point.tags.items()), point.wall_s)
            known = self._points.get(key)
            fields = {**known.fields, **point.fields} if known else point.fields
            self._points[key] = replace(point, fields=fields)
        self._waiting.clear()
