"""The telemetry store is out of reach while everything runs: afterwards no point is missing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_open import open_store
from slurm_power.errors import ConfigError
from slurm_power.ports.telemetry_store import Point
from slurm_power.site_config import read_site_config
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.influxdb_server import InfluxDbServer
from slurm_power.testing.processes import wait_for

if TYPE_CHECKING:
    from tests.scenarios.conftest import ScenarioSite

OUTAGE_S = 8.0  # longer than SQLite's own patience (busy_timeout_s), so that writes do fail
WIDEST_GAP_S = 3.0
"""Between points 0.5 s apart: what a busy machine may skip, far less than the outage."""


def points(site: ScenarioSite, measurement: str, *, since_wall_s: float) -> list[Point]:
    config = read_site_config(site.config_file, only={"store"}).table(StoreConfig)
    store = open_store(config, spool=Path("/nonexistent"))
    try:
        return store.read(measurement, since_wall_s=since_wall_s)
    finally:
        store.close()


def assert_nothing_is_missing(site: ScenarioSite, *, began_wall_s: float, ended_wall_s: float) -> None:
    """Of the controller's points and of every GPU's."""

    def newest() -> float:
        return max((point.wall_s for point in points(site, "site", since_wall_s=began_wall_s)), default=0.0)

    assert wait_for(lambda: newest() > ended_wall_s + 2, timeout_s=20, poll_s=0.5)
    series: dict[str, list[float]] = {"site": [p.wall_s for p in points(site, "site", since_wall_s=began_wall_s)]}
    for point in points(site, "gpu", since_wall_s=began_wall_s):
        series.setdefault(point.tags["uuid"], []).append(point.wall_s)
    assert len(series) == 1 + 16
    for name, times in series.items():
        inside = [began_wall_s, *(t for t in times if t < ended_wall_s), ended_wall_s]
        assert max(after - before for before, after in pairwise(inside)) < WIDEST_GAP_S, name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone with the file, as another program's transaction would be."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_locked_sqlite_file_loses_no_point(site: ScenarioSite) -> None:
    began_wall_s = time.time()
    with locked(site.directory / "telemetry.db"):
        time.sleep(OUTAGE_S)  # the outage itself
        assert points(site, "site", since_wall_s=began_wall_s + 1) == [], "the lock had no effect"
        ticks = site.api("status")["ticks"]
        site.wait_status(lambda status: status["ticks"] > ticks)
        ended_wall_s = time.time()
    assert_nothing_is_missing(site, began_wall_s=began_wall_s, ended_wall_s=ended_wall_s)


@pytest.mark.influxdb
def test_a_stopped_influxdb_loses_no_point(site: ScenarioSite, influxdb: InfluxDbServer) -> None:
    site.services.stop()
    site.store = {"kind": "influxdb", "url": influxdb.url, "database": "scenario", "spool": site.directory / "spool.db"}
    site.write_config(agent={"spool": site.cluster.directory / "nodes" / "%n" / "spool.db"})
    site.start()
    began_wall_s = time.time()
    influxdb.stop_database()
    time.sleep(OUTAGE_S)  # the outage itself
    influxdb.start()
    assert_nothing_is_missing(site, began_wall_s=began_wall_s, ended_wall_s=time.time())


@pytest.fixture
def influxdb(dev_cluster: DevCluster) -> Iterator[InfluxDbServer]:
    try:
        with InfluxDbServer(dev_cluster.directory / "influxdb") as server:
            server.create_database("scenario")
            yield server
    except ConfigError as reason:
        pytest.skip(str(reason))
