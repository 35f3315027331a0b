"""The default store: one SQLite file, shared by the processes of one machine.

A point is one row under its series (measurement + tags) and time. Killed: at most the points of the last
`flush_period_s` are lost. The file does not shrink; the room of deleted points is used again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slurm_power.adapters.telemetry_file import TelemetryFile
from slurm_power.adapters.telemetry_pruned import Pruned, SteadyWall
from slurm_power.adapters.telemetry_queue import WriteBehind
from slurm_power.adapters.telemetry_sqlite_rows import SCHEMA, RowWriter, matching_series, points_of
from slurm_power.adapters.telemetry_sqlite_upkeep import SqliteUpkeep
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_rules import time_us
from slurm_power.ports.telemetry_store import Point

_END_OF_TIME_US = 2**62
_BATCH_POINTS = 50000
"""Of one transaction: neighbours in time of one series share a page of the file."""

_CLOSE_TIMEOUT_S = 10.0


class SqliteStore:
    def __init__(
        self,
        path: Path,
        *,
        retention_s: float,
        flush_period_s: float = 1.0,
        memory_max_points: int = 100_000,
        thinning: Sequence[tuple[float, float]] = (),
        busy_timeout_s: float = 5.0,
        wall_s: Callable[[], float] = time.time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`thinning`: (points older than so many seconds, one for so many seconds)."""
        self._file = TelemetryFile(path, SCHEMA, busy_timeout_s=busy_timeout_s)
        self._rows = RowWriter()
        self._upkeep = SqliteUpkeep(
            self._file, retention_s=retention_s, thinning=thinning, clock=SteadyWall(wall_s, now_s)
        )
        self._queue = WriteBehind(
            self._insert,
            name=f"telemetry store {path.name}",
            flush_period_s=flush_period_s,
            max_points=memory_max_points,
            batch_points=_BATCH_POINTS,
            after_flush=self._upkeep.some_when_due,
        )

    def write(self, points: Sequence[Point]) -> None:
        self._queue.add(points)

    def read(
        self,
        measurement: str,
        *,
        since_wall_s: float,
        until_wall_s: float | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Point]:
        until_us = _END_OF_TIME_US if until_wall_s is None else time_us(until_wall_s)
        window = (time_us(since_wall_s), until_us, -1 if limit is None else limit)
        found: list[Point] = []
        if not self._file.exists():
            return []  # nothing was ever written
        with self._file.reading() as connection:
            for series, text in matching_series(connection, measurement, tags or {}):
                found += points_of(connection, measurement, series, json.loads(text), window)
        found.sort(key=lambda point: point.wall_s)
        return found if limit is None else found[max(0, len(found) - limit) :]

    def prune(self) -> Pruned:
        """All that retention and thinning ask for, now. Raise Unavailable."""
        return self._upkeep.all()

    def pending(self) -> int:
        return self._queue.pending()

    def dropped(self) -> int:
        return self._queue.dropped()

    def flush(self, timeout_s: float) -> bool:
        return self._queue.flush(timeout_s)

    def close(self) -> None:
        self._queue.close(_CLOSE_TIMEOUT_S)
        self._file.close()

    def _insert(self, points: Sequence[Point]) -> None:
        try:
            with self._file.transaction() as connection:
                self._rows.insert(connection, points)
        except Unavailable:
            self._rows.forget()  # ids given in a transaction that was rolled back
            raise
