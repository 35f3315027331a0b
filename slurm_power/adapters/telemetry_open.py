"""The store that the [store] table asks for. Each kind is imported only when it is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from slurm_power.adapters.secret_file import read_secret
from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_pruned import Pruned
from slurm_power.errors import require
from slurm_power.ports.telemetry_store import TelemetryStore

NO_SPOOL = Path("/nonexistent/spool.db")
"""For who only reads: what waits in the daemons' spools is theirs to deliver."""


class Upkeep(Protocol):
    def some(self) -> Pruned:
        """What is due, a little at a time. Raise Unavailable."""
        ...

    def all(self) -> Pruned: ...


def open_store(config: StoreConfig, *, spool: Path | None = None) -> TelemetryStore:
    """`spool`: the process's own spool, when it is not the one in the config. Nothing is opened before the first use.
    Raise ConfigError for a token file that cannot be read or that anybody may read."""
    if config.kind == "sqlite":
        return _open_sqlite(config)
    return _open_influxdb(config if spool is None else replace(config, spool=spool))


def _open_sqlite(config: StoreConfig) -> TelemetryStore:
    from slurm_power.adapters.telemetry_sqlite import SqliteStore

    assert config.path is not None, "StoreConfig checks it"
    return SqliteStore(
        config.path,
        retention_s=config.retention_s,
        flush_period_s=config.flush_period_s,
        memory_max_points=config.memory_max_points,
        thinning=config.thinning,
    )


def _open_influxdb(config: StoreConfig) -> TelemetryStore:
    from slurm_power.adapters.telemetry_influxdb import InfluxStore

    require(config.spool is not None, "spool", config.spool, 'kind = "influxdb" needs a file for undelivered points')
    assert config.spool is not None, "required above"
    return InfluxStore(
        url=config.url,
        org=config.org,
        database=config.database,
        token=read_secret(config.token_file, key="token_file") if config.token_file else "",
        spool=config.spool,
        spool_max_points=config.spool_max_points,
        memory_max_points=config.memory_max_points,
        flush_period_s=config.flush_period_s,
        timeout_s=config.timeout_s,
        backoff_max_s=config.backoff_max_s,
    )


def open_upkeep(config: StoreConfig, store: TelemetryStore) -> Upkeep | None:
    """None where the store looks after itself."""
    if config.kind == "sqlite":
        return None
    from slurm_power.adapters.telemetry_influxdb import InfluxStore
    from slurm_power.adapters.telemetry_influxdb_upkeep import InfluxUpkeep

    assert isinstance(store, InfluxStore), "it was opened with this config"
    return InfluxUpkeep(store, thinning=config.thinning)
