"""One SQLite file that several processes write: opened again when it was deleted, put aside when it is broken.

WAL with synchronous=NORMAL: a killed process loses no finished transaction; a power cut may lose those since the
last checkpoint (SQLite, "PRAGMA synchronous"), never the file's consistency.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slurm_power.errors import Unavailable

log = logging.getLogger(__name__)

_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CHECKPOINT_PAGES = 8_000
"""A page that several transactions change is copied back once: 32 MB of them."""

_CACHE_KIB = 100_000
"""At most; the last page of each of 10,000 series fits."""

_SIDECARS = ("", "-wal", "-shm")


class TelemetryFile:
    """Every failure is Unavailable; a broken file is moved to `<file>.broken-<seconds>` and a new one is started."""

    def __init__(self, path: Path, schema: str, *, busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self._schema = schema
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, alone among the writers of the file."""
        with self._lock, self._translated(), self._broken_file_put_aside():
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, that waits for nobody and creates nothing."""
        with self._translated():
            connection = self._open(mode="ro")
            try:
                yield connection
            finally:
                connection.close()

    def exists(self) -> bool:
        """False before the first transaction; Unavailable when its folder cannot be looked into."""
        with self._translated():
            return _inode(self.path) is not None

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode == _inode(self.path):
            return self._connection
        if self._connection is not None:
            log.warning("%s: the file is gone or another one; opened again", self.path)
            self._disconnect()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._open(mode="rwc")
        self._inode = _inode(self.path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.executescript(self._schema)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _open(self, *, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as cause:
            raise Unavailable(f"{self.path}: {cause}") from cause
        except OSError as cause:
            raise Unavailable(f"{self.path}: {cause.strerror}") from cause

    @contextmanager
    def _broken_file_put_aside(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as cause:
            if _is_broken(cause):
                self._put_aside(cause)
            raise

    def _put_aside(self, cause: sqlite3.Error) -> None:
        """Under a lock: two processes that meet the same broken file must not move the new one as well."""
        broken_inode = self._inode or _inode(self.path)
        self._disconnect()
        with suppress(OSError), Path(f"{self.path}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _inode(self.path) != broken_inode:
                return
            aside = f"{self.path}.broken-{time.time_ns() // 1_000_000_000}"
            for suffix in _SIDECARS:
                with suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
            log.error("%s: %s; moved to %s, a new file is started", self.path, cause, aside)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _is_broken(error: sqlite3.Error) -> bool:
    """Extended codes carry the primary one in their lowest byte (SQLite, "Result Codes")."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _BROKEN
