"""slurm-power telemetry check and prune, as an admin calls them."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slurm_power.adapters.telemetry_spool import Spool
from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.cli.telemetry import telemetry
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.ports.telemetry_store import Point


def gpu(age_s: float) -> Point:
    return Point("gpu", time.time() - age_s, {"draw_watts": 400.0}, {"node": "n1", "uuid": "GPU-a"})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "slurm-power.toml"
    file.write_text(f'[store]\npath = "{tmp_path}/telemetry.db"\nfull_rate_s = 60\nten_s_rate_s = 3600\n')
    return file


def keep(tmp_path: Path, *points: Point) -> None:
    store = SqliteStore(tmp_path / "telemetry.db", retention_s=9e9)
    store.write(points)
    store.close()


def checked(config: Path) -> dict[str, Any]:
    result = CliRunner().invoke(telemetry, ["check", "--config", str(config), "--json"])
    return {one["what"]: one for one in json.loads(result.output)}


def test_a_store_that_is_written_is_well(config: Path, tmp_path: Path) -> None:
    keep(
        tmp_path, gpu(2.0), Point("site", time.time(), {"it_watts": 1.0}), Point("node", time.time(), {"x_watts": 1.0})
    )
    found = checked(config)
    assert {one["verdict"] for one in found.values()} == {"ok"}
    assert 1.0 <= found["gpu lag"]["value"] <= 60.0
    assert found["schema"]["value"] == 2


def test_what_is_late_is_a_warning(config: Path, tmp_path: Path) -> None:
    keep(tmp_path, gpu(300.0))
    found = checked(config)
    assert (found["gpu lag"]["verdict"], found["site lag"]["verdict"]) == ("warn", "warn")
    assert "nothing within 3600 s from the controller" in found["site lag"]["words"]


def test_a_store_that_cannot_be_read_fails_the_command(config: Path, tmp_path: Path) -> None:
    (tmp_path / "telemetry.db").write_bytes(b"not a database, " * 400)
    result = CliRunner().invoke(telemetry, ["check", "--config", str(config)])
    assert isinstance(result.exception, Unavailable)
    assert "store, gpu lag" in str(result.exception)


def test_a_file_of_another_schema_is_said(config: Path, tmp_path: Path) -> None:
    keep(tmp_path, gpu(1.0))
    with sqlite3.connect(tmp_path / "telemetry.db") as connection:
        connection.execute("PRAGMA user_version = 9")
    assert checked(config)["schema"]["verdict"] == "fail"


def test_a_spool_tells_what_waits_and_what_was_lost(tmp_path: Path) -> None:
    file = tmp_path / "slurm-power.toml"
    file.write_text(
        f'[store]\nkind = "influxdb"\nurl = "http://127.0.0.1:9"\ndatabase = "d"\nspool = "{tmp_path}/spool.db"\n'
        "spool_max_points = 3\ntimeout_s = 1\n"
    )
    spool = Spool(tmp_path / "spool.db", max_lines=3)
    spool.append(["a", "b"])
    spool.append(["c", "d", "e"])
    spool.set_aside("x", "400 unable to parse")
    spool.close()
    found = checked(file)["spool spool.db"]
    assert found["verdict"] == "warn"
    assert found["words"].startswith("3 points wait (of 3), 1 refused and set aside, 2 dropped")


def test_prune_thins_what_is_old(config: Path, tmp_path: Path) -> None:
    begin_s = (time.time() - 600) // 60 * 60
    points = [Point("gpu", begin_s + s, {"draw_watts": 1.0 * s}, {"uuid": "GPU-a"}) for s in range(120)]
    keep(tmp_path, *points)
    result = CliRunner().invoke(telemetry, ["prune", "--config", str(config), "--json"])
    assert json.loads(result.output) == {"deleted": 0, "merged": 120}
    store = SqliteStore(tmp_path / "telemetry.db", retention_s=9e9)
    assert [point.fields["draw_watts"] for point in store.read("gpu", since_wall_s=0)][:2] == [4.5, 14.5]
    store.close()


def test_a_site_without_a_store_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "slurm-power.toml"
    file.write_text("")
    result = CliRunner().invoke(telemetry, ["check", "--config", str(file)])
    assert isinstance(result.exception, ConfigError)
