"""The [store] table: where telemetry and decision events are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    kind: Literal["sqlite", "influxdb"] = "sqlite"

    path: Path | None = None
    """sqlite: the database file. Several processes of one machine may share it; it must not lie on a network drive."""

    retention_s: float = 30 * 24 * 3600.0
    """sqlite: older points are deleted. (InfluxDB's retention is set on its server.)"""

    full_rate_s: float = 2 * 24 * 3600.0
    """Points of gpu and node are kept as they came for so long; of older ones, one for ten seconds."""

    ten_s_rate_s: float = 14 * 24 * 3600.0
    """Of points older than this, one for a minute."""

    url: str = ""
    """influxdb: http(s)://host:port of a server that answers /api/v2/write and /query (1.8 or newer)."""

    org: str = "slurm-power"
    """influxdb: organisation; 1.x ignores it."""

    database: str = ""
    """influxdb: bucket written to, and database of the same name read by InfluxQL (2.x: needs a DBRP mapping)."""

    token_file: Path | None = None
    """influxdb: file whose first line is the token; readable by its owner and group only. None: no token."""

    spool: Path | None = None
    """influxdb: file of the points not yet delivered. Each process has its own."""

    spool_max_points: int = 1_000_000
    """influxdb: the oldest points are dropped, and counted, above this."""

    timeout_s: float = 10.0
    """influxdb: of one request."""

    backoff_max_s: float = 60.0
    """influxdb: longest wait between two tries during an outage."""

    flush_period_s: float = 1.0
    """Points written since the last flush are in memory only: what a `kill -9` can lose."""

    memory_max_points: int = 100_000
    """Points kept in memory while the file cannot be written (disk full, locked); the oldest are dropped above this."""

    def __post_init__(self) -> None:
        require(self.kind in ("sqlite", "influxdb"), "kind", self.kind, "must be sqlite or influxdb")
        require(self.flush_period_s > 0, "flush_period_s", self.flush_period_s, "must be positive")
        require(self.memory_max_points >= 1, "memory_max_points", self.memory_max_points, "must be at least 1")
        require(self.full_rate_s >= 60, "full_rate_s", self.full_rate_s, "must be at least 60")
        least_s = self.full_rate_s
        require(
            self.ten_s_rate_s >= least_s, "ten_s_rate_s", self.ten_s_rate_s, f"must be full_rate_s = {least_s} or more"
        )
        if self.kind == "sqlite":
            self._check_sqlite()
        else:
            self._check_influxdb()

    @property
    def thinning(self) -> tuple[tuple[float, float], ...]:
        """(points older than so many seconds, one for so many seconds)."""
        return ((self.full_rate_s, 10.0), (self.ten_s_rate_s, 60.0))

    def _check_sqlite(self) -> None:
        require(self.path is not None, "path", self.path, 'kind = "sqlite" needs the file to keep the points in')
        require(self.retention_s > 0, "retention_s", self.retention_s, "must be positive")

    def _check_influxdb(self) -> None:
        require(_is_http_url(self.url), "url", repr(self.url), "must be http://host:port or https://host:port")
        require(bool(self.org), "org", repr(self.org), "must not be empty")
        require(bool(self.database), "database", repr(self.database), 'kind = "influxdb" needs a database (bucket)')
        require(self.spool_max_points >= 1, "spool_max_points", self.spool_max_points, "must be at least 1")
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "must be positive")
        require(self.backoff_max_s > 0, "backoff_max_s", self.backoff_max_s, "must be positive")


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        return False
