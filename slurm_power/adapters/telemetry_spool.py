"""Lines on their way to a server, on disk: what an outage or a restart would otherwise lose.

First in, first out, bounded. A line the server refuses is set aside with the server's reason, for a person to look
at (`sqlite3 SPOOL 'SELECT * FROM set_aside'`). Durability is that of TelemetryFile.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_power.adapters.telemetry_file import TelemetryFile

SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    count INTEGER NOT NULL,
    lines TEXT NOT NULL  -- JSON array
);
CREATE TABLE IF NOT EXISTS dropped (  -- one row: how many in all, and when last
    id INTEGER PRIMARY KEY CHECK (id = 1),
    lines INTEGER NOT NULL,
    wall_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS set_aside (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    line TEXT NOT NULL,
    reason TEXT NOT NULL,
    wall_s REAL NOT NULL
);
"""
SET_ASIDE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    batch_id: int
    lines: tuple[str, ...]


class Spool:
    def __init__(self, path: Path, *, max_lines: int) -> None:
        self._file = TelemetryFile(path, SCHEMA)
        self._max_lines = max_lines

    def exists(self) -> bool:
        return self._file.exists()

    def append(self, lines: Sequence[str]) -> int:
        """As one batch. Return how many of the oldest lines were dropped to stay within the bound: whole batches, and
        of this one what is too much. Raise Unavailable."""
        kept = lines[-self._max_lines :]
        dropped = len(lines) - len(kept)
        with self._file.transaction() as connection:
            waiting = _count(connection)
            while waiting + len(kept) > self._max_lines:
                oldest, count = connection.execute("SELECT id, count FROM batches ORDER BY id LIMIT 1").fetchone()
                connection.execute("DELETE FROM batches WHERE id = ?", (oldest,))
                waiting, dropped = waiting - count, dropped + count
            text = json.dumps(kept, ensure_ascii=False)
            connection.execute("INSERT INTO batches (count, lines) VALUES (?, ?)", (len(kept), text))
            if dropped:  # also for `slurm-power telemetry check`, another process
                connection.execute(
                    "INSERT INTO dropped VALUES (1, ?, ?) ON CONFLICT DO UPDATE"
                    " SET lines = lines + excluded.lines, wall_s = excluded.wall_s",
                    (dropped, time.time()),
                )
        return dropped

    def oldest(self, limit: int) -> list[Batch]:
        """The oldest batch, and those after it that together have at most `limit` lines. Raise Unavailable."""
        found: list[Batch] = []
        with self._file.transaction() as connection:
            for batch_id, count, text in connection.execute("SELECT id, count, lines FROM batches ORDER BY id"):
                if found and sum(len(one.lines) for one in found) + count > limit:
                    break
                found.append(Batch(batch_id, tuple(json.loads(text))))
        return found

    def remove(self, batches: Sequence[Batch]) -> None:
        with self._file.transaction() as connection:
            connection.executemany("DELETE FROM batches WHERE id = ?", ((one.batch_id,) for one in batches))

    def set_aside(self, line: str, reason: str) -> None:
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO set_aside (line, reason, wall_s) VALUES (?, ?, ?)", (line, reason, time.time())
            )
            connection.execute(
                "DELETE FROM set_aside WHERE id <= (SELECT max(id) FROM set_aside) - ?", (SET_ASIDE_MAX,)
            )

    def count(self) -> int:
        with self._file.transaction() as connection:
            return _count(connection)

    def close(self) -> None:
        self._file.close()


def _count(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT coalesce(sum(count), 0) FROM batches").fetchone()
    return int(row[0])
