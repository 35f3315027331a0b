"""Is telemetry well? Reachable, up to date, nothing lost, and as docs/telemetry.md says. One finding per question."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_sqlite_rows import SCHEMA_VERSION
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_store import TelemetryStore

Verdict = Literal["ok", "warn", "fail"]

LAG_WARN_S = 60.0
LOOK_BACK_S = 3600.0
FEEDS = {"gpu": "agents", "node": "agents", "site": "controller"}
"""What is written every few seconds, and by whom."""


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    verdict: Verdict
    words: str
    value: float | None = None


def findings(store: TelemetryStore, config: StoreConfig, *, spools: list[Path], now_wall_s: float) -> Iterator[Finding]:
    """`spools`: of processes on this machine."""
    yield from _schema(config)
    for measurement, writer in FEEDS.items():
        yield _lag(store, measurement, writer, now_wall_s)
    for spool in spools:
        yield _spool(spool, config.spool_max_points)


def _lag(store: TelemetryStore, measurement: str, writer: str, now_wall_s: float) -> Finding:
    what = f"{measurement} lag"
    try:
        newest = store.read(measurement, since_wall_s=now_wall_s - LOOK_BACK_S, limit=1)
    except Unavailable as failure:
        return Finding(what, "fail", f"cannot be read: {failure}")
    if not newest:
        return Finding(what, "warn", f"nothing within {LOOK_BACK_S:.0f} s from the {writer}")
    lag_s = now_wall_s - newest[-1].wall_s
    if lag_s < -1.0:
        return Finding(what, "warn", f"the newest point lies {-lag_s:.0f} s ahead: a clock is wrong", lag_s)
    return Finding(what, "ok" if lag_s <= LAG_WARN_S else "warn", f"newest {max(0.0, lag_s):.0f} s old", lag_s)


def _schema(config: StoreConfig) -> Iterator[Finding]:
    if config.kind != "sqlite" or config.path is None:
        return
    try:
        with _read_only(config.path) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            (series,) = connection.execute("SELECT count(*) FROM series").fetchone()
    except sqlite3.Error as failure:
        yield Finding("store", "fail", f"{config.path}: {failure}")
        return
    size_bytes = float(pages * page_bytes)
    yield Finding("store", "ok", f"{config.path}: {size_bytes / 1e6:.0f} MB, {series} series", size_bytes)
    good = version == SCHEMA_VERSION
    yield Finding(
        "schema", "ok" if good else "fail", f"version {version}; this release writes {SCHEMA_VERSION}", version
    )


def _spool(path: Path, max_points: int) -> Finding:
    what = f"spool {path.name}"
    if not path.exists():
        return Finding(what, "ok", f"{path}: none, nothing ever waited", 0.0)
    try:
        with _read_only(path) as connection:
            (waiting,) = connection.execute("SELECT coalesce(sum(count), 0) FROM batches").fetchone()
            (refused,) = connection.execute("SELECT count(*) FROM set_aside").fetchone()
            (dropped,) = connection.execute("SELECT coalesce(sum(lines), 0) FROM dropped").fetchone()
    except sqlite3.Error as failure:
        return Finding(what, "fail", f"{path}: {failure}")
    words = (
        f"{waiting} points wait (of {max_points}), {refused} refused and set aside, {dropped} dropped for want of room"
    )
    verdict: Verdict = "warn" if refused or dropped or waiting > max_points / 2 else "ok"
    return Finding(what, verdict, words, float(waiting))


@contextmanager
def _read_only(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
        yield connection
