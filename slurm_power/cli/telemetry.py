"""slurm-power telemetry: is the store well, and thin and delete what is old."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from slurm_power.adapters.telemetry_check import Finding, findings
from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_open import NO_SPOOL, open_store, open_upkeep
from slurm_power.adapters.telemetry_pruned import Pruned
from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.cli.config_option import config_option
from slurm_power.cli.controller_client import echo_json
from slurm_power.cli.words import printable
from slurm_power.daemons.node_agent_config import NodeAgentConfig
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.ports.telemetry_store import TelemetryStore
from slurm_power.site_config import SiteConfig, read_site_config

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def telemetry() -> None:
    """Check the telemetry store; thin and delete old points."""


@telemetry.command()
@config_option
@_JSON
def check(config_path: Path, as_json: bool) -> None:
    """Is the store reachable and up to date, does anything wait or get lost, is its schema ours?

    Exit code 6 when something failed; warnings alone are no failure.
    """
    config = read_site_config(config_path, only=("store", "agent"))
    chosen = _store_config(config)
    store = _opened(chosen)
    try:
        found = [*findings(store, chosen, spools=_spools(config, chosen), now_wall_s=time.time()), _kept(store, chosen)]
    finally:
        store.close()
    if as_json:
        echo_json([asdict(one) for one in found])
    else:
        _print(found)
    failed = [one.what for one in found if one.verdict == "fail"]
    if failed:
        raise Unavailable(f"telemetry is not well: {', '.join(failed)}")


@telemetry.command()
@config_option
@_JSON
def prune(config_path: Path, as_json: bool) -> None:
    """Thin and delete now what [store] says is old. (The daemons do it by themselves, a little at a time.)"""
    chosen = _store_config(read_site_config(config_path, only=("store", "agent")))
    store = _opened(chosen)
    try:
        done = _pruned(store, chosen)
    finally:
        store.close()
    if as_json:
        echo_json(asdict(done))
    else:
        click.echo(f"{done.deleted} points deleted; {done.merged} went into points that stand for several.")


def _pruned(store: TelemetryStore, config: StoreConfig) -> Pruned:
    if isinstance(store, SqliteStore):
        return store.prune()
    upkeep = open_upkeep(config, store)
    return Pruned() if upkeep is None else upkeep.all()


def _store_config(config: SiteConfig) -> StoreConfig:
    if "store" not in config.given:
        raise ConfigError(f"{config.path}: no table [store]: this site keeps no telemetry")
    return config.table(StoreConfig)


def _opened(config: StoreConfig) -> TelemetryStore:
    return open_store(config, spool=NO_SPOOL)


def _spools(config: SiteConfig, chosen: StoreConfig) -> list[Path]:
    if chosen.kind == "sqlite":
        return []
    found = [chosen.spool] if chosen.spool is not None else []
    agents = config.table(NodeAgentConfig).spool if "agent" in config.given else None
    if agents is not None:
        found += [Path(str(agents).replace("%n", node)) for node in _node_names()]
    return list(dict.fromkeys(found))


def _node_names() -> Iterator[str]:
    yield os.environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]


def _kept(store: TelemetryStore, config: StoreConfig) -> Finding:
    thinned = f"full rate for {_days(config.full_rate_s)}, then 10 s, from {_days(config.ten_s_rate_s)} on 1 min"
    if isinstance(store, SqliteStore):
        return Finding("retention", "ok", f"{_days(config.retention_s)}; GPUs and nodes: {thinned}", config.retention_s)
    from slurm_power.adapters.telemetry_influxdb import InfluxStore

    assert isinstance(store, InfluxStore), "there is no third kind"
    try:
        policies = "; ".join(store.retention_words()) or "none told"
    except Unavailable as failure:
        return Finding("retention", "warn", f"the server does not tell its policies: {failure}")
    return Finding("retention", "ok", f"server: {policies}; GPUs and nodes: {thinned}")


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:g} days"


def _print(found: list[Finding]) -> None:
    table = Table("what", "", "found", box=box.SIMPLE_HEAD)
    for one in found:
        table.add_row(one.what, f"[{_STYLES[one.verdict]}]{one.verdict}[/]", _plain(one.words))
    Console(highlight=False).print(table)


def _plain(text: str) -> str:
    return printable(text).replace("[", "\\[")
