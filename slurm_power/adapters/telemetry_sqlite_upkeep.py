"""Retention and thinning of the SQLite store, in short transactions between the writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import groupby

from slurm_power.adapters.telemetry_file import TelemetryFile
from slurm_power.adapters.telemetry_pruned import Pruned, SteadyWall
from slurm_power.adapters.telemetry_sqlite_rows import RowBook
from slurm_power.errors import Unavailable
from slurm_power.monitoring.downsample import THINNED_MEASUREMENTS, bucket_of, merged_fields
from slurm_power.ports.telemetry_rules import time_us

_PERIOD_S = 60.0
_STEPS = 10
_ROWS = 5000
_WINDOW_S = 60.0
_SERIES = 200


class SqliteUpkeep:
    def __init__(
        self,
        file: TelemetryFile,
        *,
        retention_s: float,
        thinning: Sequence[tuple[float, float]],
        clock: SteadyWall,
    ) -> None:
        self._file = file
        self._retention_s = retention_s
        self._thinning = tuple(thinning)
        self._clock = clock
        self._due_s = 0.0
        self._next_series = 0

    def some_when_due(self) -> None:
        now_s = self._clock.wall_s()
        if now_s is None or 0 <= self._due_s - now_s <= _PERIOD_S:
            return
        try:
            finished = any(self._step(now_s)[1] for _ in range(_STEPS))
        except Unavailable:
            finished = True  # nothing is lost by a later one; a failing file is reported by the writes
        self._due_s = now_s + min(_PERIOD_S, self._retention_s) if finished else 0.0

    def all(self) -> Pruned:
        """Raise Unavailable."""
        if not self._file.exists():
            return Pruned()
        self._next_series = 0
        done, finished, now_s = Pruned(), False, self._clock.wall_s()
        if now_s is None:
            raise Unavailable("the wall clock has just been set: nothing is deleted by it for an hour")
        while not finished:
            some, finished = self._step(now_s)
            done += some
        return done

    def _step(self, now_s: float) -> tuple[Pruned, bool]:
        """One short transaction; True when there is no more to do."""
        deleted, finished = self._delete_some(time_us(max(0.0, now_s - self._retention_s)))
        if not finished:
            return Pruned(deleted), False
        for after_s, bucket_s in self._thinning:
            merged = self._thin_some(bucket_s, before_us=time_us(max(0.0, now_s - after_s)))
            if merged is not None:
                return Pruned(deleted, merged), False
        return Pruned(deleted), True

    def _delete_some(self, before_us: int) -> tuple[int, bool]:
        deleted = 0
        with self._file.transaction() as connection:
            series = connection.execute(
                "SELECT id FROM series WHERE id > ? ORDER BY id LIMIT ?", (self._next_series, _SERIES)
            ).fetchall()
            for (one,) in series:
                deleted += _delete_older(connection, one, before_us, _ROWS - deleted)
                if deleted >= _ROWS:
                    return deleted, False
                self._next_series = one
        if len(series) < _SERIES:
            self._next_series = 0
            return deleted, True
        return deleted, False

    def _thin_some(self, bucket_s: float, *, before_us: int) -> int | None:
        """None when no series has whole buckets older than that any more."""
        window_us = round(max(bucket_s, _WINDOW_S) * 1e6)
        end_us = before_us // window_us * window_us
        names = ",".join("?" * len(THINNED_MEASUREMENTS))
        merged = 0
        with self._file.transaction() as connection:
            due = connection.execute(
                "SELECT series.id, coalesce(until_us, 0) FROM series"
                " LEFT JOIN thinned ON series = series.id AND bucket_s = ?"
                f" WHERE measurement IN ({names}) AND coalesce(until_us, 0) < ? LIMIT ?",
                (bucket_s, *THINNED_MEASUREMENTS, end_us, _SERIES),
            ).fetchall()
            rows = RowBook(connection)
            for series, begin_us in due:
                count, until_us = _thin_series(rows, series, begin_us, end_us, bucket_s)
                connection.execute("INSERT OR REPLACE INTO thinned VALUES (?, ?, ?)", (series, bucket_s, until_us))
                merged += count
                if merged >= _ROWS:
                    break
        return merged if due else None


def _thin_series(rows: RowBook, series: int, begin_us: int, end_us: int, bucket_s: float) -> tuple[int, int]:
    """(rows merged, up to where). The last bucket is left for the next step when its rows may go on."""
    bucket_us = round(bucket_s * 1e6)
    limit = max(_ROWS, round(40 * bucket_s))
    found = rows.read(series, begin_us, end_us, limit=limit)
    buckets = [list(some) for _, some in groupby(found, key=lambda row: bucket_of(row[0], bucket_s=bucket_s))]
    until_us = end_us
    if len(found) == limit and len(buckets) > 1:
        until_us = bucket_of(buckets.pop()[0][0], bucket_s=bucket_s) * bucket_us
    elif len(found) == limit:
        until_us = found[-1][0] + 1
    several = [bucket for bucket in buckets if len(bucket) > 1]
    if several:
        merged = [(bucket[-1][0], merged_fields([fields for _, fields in bucket])) for bucket in buckets]
        rows.replace(series, begin_us, until_us, merged)
    return sum(map(len, several)), until_us


def _delete_older(connection: sqlite3.Connection, series: int, before_us: int, limit: int) -> int:
    """Number of points deleted; a series without points goes too."""
    deleted = connection.execute(
        "DELETE FROM samples WHERE series = ?1 AND time_us IN"
        " (SELECT time_us FROM samples WHERE series = ?1 AND time_us < ?2 ORDER BY time_us LIMIT ?3)",
        (series, before_us, limit),
    ).rowcount
    gone = connection.execute(
        "DELETE FROM series WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM samples WHERE series = ?1)", (series,)
    ).rowcount
    if gone:
        connection.execute("DELETE FROM thinned WHERE series = ?", (series,))
    return deleted
