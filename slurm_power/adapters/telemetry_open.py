"""The store that the [store] table asks for. Each kind is imported only when it is used."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.errors import ConfigError, require
from slurm_power.ports.telemetry_store import TelemetryStore


def open_store(config: StoreConfig, *, spool: Path | None = None) -> TelemetryStore:
    """`spool`: the process's own spool, when it is not the one in the config. Nothing is opened before the first use.
    Raise ConfigError for a token file that cannot be read or that anybody may read."""
    if config.kind == "sqlite":
        return _open_sqlite(config)
    return _open_influxdb(config if spool is None else replace(config, spool=spool))


def read_token(path: Path) -> str:
    try:
        if path.stat().st_mode & stat.S_IROTH:
            raise ConfigError(f"token_file = {path}: anybody may read it; run chmod o-r {path}")
        token = path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"token_file = {path}: {cause}") from cause
    require(token.isprintable() and bool(token), "token_file", path, "its first line must be the token")
    return token


def _open_sqlite(config: StoreConfig) -> TelemetryStore:
    from slurm_power.adapters.telemetry_sqlite import SqliteStore

    assert config.path is not None, "StoreConfig checks it"
    return SqliteStore(
        config.path,
        retention_s=config.retention_s,
        flush_period_s=config.flush_period_s,
        memory_max_points=config.memory_max_points,
    )


def _open_influxdb(config: StoreConfig) -> TelemetryStore:
    from slurm_power.adapters.telemetry_influxdb import InfluxStore

    require(config.spool is not None, "spool", config.spool, 'kind = "influxdb" needs a file for undelivered points')
    assert config.spool is not None, "required above"
    return InfluxStore(
        url=config.url,
        org=config.org,
        database=config.database,
        token=read_token(config.token_file) if config.token_file else "",
        spool=config.spool,
        spool_max_points=config.spool_max_points,
        memory_max_points=config.memory_max_points,
        flush_period_s=config.flush_period_s,
        timeout_s=config.timeout_s,
        backoff_max_s=config.backoff_max_s,
    )
