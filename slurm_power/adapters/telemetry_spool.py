"""Lines on their way to a server, on disk: what an outage or a restart would otherwise lose.

First in, first out, bounded. A line the server refuses is set aside with the server's reason, for a person to look
at (`sqlite3 SPOOL 'SELECT * FROM set_aside'`). Durability is that of TelemetryFile.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from slurm_power.adapters.telemetry_file import TelemetryFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY AUTOINCREMENT, line TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS set_aside (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    line TEXT NOT NULL,
    reason TEXT NOT NULL,
    wall_s REAL NOT NULL
);
"""

SET_ASIDE_MAX = 10_000


class Spool:
    def __init__(self, path: Path, *, max_lines: int) -> None:
        self._file = TelemetryFile(path, _SCHEMA)
        self._max_lines = max_lines

    def exists(self) -> bool:
        return self._file.exists()

    def append(self, lines: Sequence[str]) -> int:
        """Return how many of the oldest lines were dropped to stay within the bound. Raise Unavailable."""
        with self._file.transaction() as connection:
            connection.executemany("INSERT INTO spool (line) VALUES (?)", ((line,) for line in lines))
            surplus = _count(connection) - self._max_lines
            if surplus > 0:
                connection.execute(
                    "DELETE FROM spool WHERE id IN (SELECT id FROM spool ORDER BY id LIMIT ?)", (surplus,)
                )
        return max(0, surplus)

    def oldest(self, limit: int) -> list[tuple[int, str]]:
        """(id, line), oldest first. Raise Unavailable."""
        with self._file.transaction() as connection:
            return connection.execute("SELECT id, line FROM spool ORDER BY id LIMIT ?", (limit,)).fetchall()

    def remove(self, ids: Sequence[int]) -> None:
        with self._file.transaction() as connection:
            connection.executemany("DELETE FROM spool WHERE id = ?", ((one,) for one in ids))

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
    """Lines go only from the front, so their ids have no gaps; count(*) would read the whole spool."""
    row = connection.execute("SELECT (SELECT max(id) FROM spool) - (SELECT min(id) FROM spool) + 1").fetchone()
    return int(row[0] or 0)
