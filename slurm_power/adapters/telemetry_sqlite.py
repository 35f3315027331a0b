"""The default store: one SQLite file, shared by the processes of one machine.

A point is one row under its series (measurement + tags) and time. Killed: at most the points of the last
`flush_period_s` are lost. The file does not shrink; the room of deleted points is used again.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slurm_power.adapters.telemetry_file import TelemetryFile
from slurm_power.adapters.telemetry_queue import WriteBehind
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_rules import clean_text, time_us, wall_s_from_us
from slurm_power.ports.telemetry_store import Point

_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    tags TEXT NOT NULL,  -- JSON object, keys sorted
    UNIQUE (measurement, tags)
);
CREATE TABLE IF NOT EXISTS points (
    series INTEGER NOT NULL,
    time_us INTEGER NOT NULL,  -- microseconds since the epoch
    fields TEXT NOT NULL,  -- JSON object
    PRIMARY KEY (series, time_us)
) WITHOUT ROWID;
"""

_END_OF_TIME_US = 2**62
_CLEAN_UP_PERIOD_S = 60.0
_CLEAN_UP_STEPS = 10
_CLEAN_UP_ROWS = 1000
_CLEAN_UP_SERIES = 200
_CLOSE_TIMEOUT_S = 10.0


class SqliteStore:
    def __init__(
        self,
        path: Path,
        *,
        retention_s: float,
        flush_period_s: float = 1.0,
        memory_max_points: int = 100_000,
        busy_timeout_s: float = 5.0,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._file = TelemetryFile(path, _SCHEMA, busy_timeout_s=busy_timeout_s)
        self._retention_s = retention_s
        self._wall_s = wall_s
        self._clean_up_due_s = 0.0
        self._clean_up_series = 0
        self._queue = WriteBehind(
            self._insert,
            name=f"telemetry store {path.name}",
            flush_period_s=flush_period_s,
            max_points=memory_max_points,
            after_flush=self._clean_up_when_due,
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
            for series, text in _matching_series(connection, measurement, tags or {}):
                found += _points_of(connection, measurement, series, json.loads(text), window)
        found.sort(key=lambda point: point.wall_s)
        return found if limit is None else found[max(0, len(found) - limit) :]

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
        known: dict[tuple[str, str], int] = {}
        with self._file.transaction() as connection:
            for point in points:
                key = (point.measurement, _json(point.tags))
                if key not in known:
                    known[key] = _series_id(connection, *key)
                connection.execute(
                    "INSERT INTO points VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                    " SET fields = json_patch(fields, excluded.fields)",
                    (known[key], time_us(point.wall_s), _json(point.fields)),
                )

    def _clean_up_when_due(self) -> None:
        now_s = self._wall_s()
        if 0 <= self._clean_up_due_s - now_s <= _CLEAN_UP_PERIOD_S:
            return
        before_us = time_us(max(0.0, now_s - self._retention_s))
        try:
            finished = any(self._clean_up_some(before_us) for _ in range(_CLEAN_UP_STEPS))
        except Unavailable:
            finished = True  # nothing is lost by a later clean-up; a failing file is reported by the writes
        self._clean_up_due_s = now_s + min(_CLEAN_UP_PERIOD_S, self._retention_s) if finished else 0.0

    def _clean_up_some(self, before_us: int) -> bool:
        """One short transaction; False when there is more to delete."""
        with self._file.transaction() as connection:
            series = connection.execute(
                "SELECT id FROM series WHERE id > ? ORDER BY id LIMIT ?", (self._clean_up_series, _CLEAN_UP_SERIES)
            ).fetchall()
            rows_left = _CLEAN_UP_ROWS
            for (one,) in series:
                rows_left -= _delete_older(connection, one, before_us, rows_left)
                if rows_left <= 0:
                    return False
                self._clean_up_series = one
        if len(series) < _CLEAN_UP_SERIES:
            self._clean_up_series = 0
            return True
        return False


def _matching_series(
    connection: sqlite3.Connection, measurement: str, tags: Mapping[str, str]
) -> list[tuple[int, str]]:
    """Tags are looked for in their JSON text: quotes inside a value are escaped there, so `"name":"value"` is only
    ever a tag. (SQLite's own JSON functions end a text at a NUL character.)"""
    query, parts = "SELECT id, tags FROM series WHERE measurement = ?", []
    for name, value in tags.items():
        query += " AND instr(tags, ?)" if value else " AND NOT instr(tags, ?)"
        parts.append(_json({name: clean_text(value)})[1:-1] if value else f"{json.dumps(name)}:")
    return connection.execute(query, (measurement, *parts)).fetchall()


def _points_of(
    connection: sqlite3.Connection,
    measurement: str,
    series: int,
    tags: Mapping[str, str],
    window: tuple[int, int, int],
) -> list[Point]:
    """The newest `window[2]` points (all if negative) since window[0] and before window[1]."""
    rows = connection.execute(
        "SELECT time_us, fields FROM points WHERE series = ? AND time_us >= ? AND time_us < ?"
        " ORDER BY time_us DESC LIMIT ?",
        (series, *window),
    )
    return [Point(measurement, wall_s_from_us(at_us), json.loads(fields), tags) for at_us, fields in rows]


def _series_id(connection: sqlite3.Connection, measurement: str, tags: str) -> int:
    connection.execute(
        "INSERT INTO series (measurement, tags) VALUES (?, ?) ON CONFLICT DO NOTHING", (measurement, tags)
    )
    row = connection.execute("SELECT id FROM series WHERE measurement = ? AND tags = ?", (measurement, tags)).fetchone()
    return int(row[0])


def _delete_older(connection: sqlite3.Connection, series: int, before_us: int, limit: int) -> int:
    """Number of points deleted; a series without points goes too."""
    deleted = connection.execute(
        "DELETE FROM points WHERE series = ?1 AND time_us IN"
        " (SELECT time_us FROM points WHERE series = ?1 AND time_us < ?2 ORDER BY time_us LIMIT ?3)",
        (series, before_us, limit),
    ).rowcount
    connection.execute(
        "DELETE FROM series WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM points WHERE series = ?1)", (series,)
    )
    return deleted


def _json(values: Mapping[str, object]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))
