"""The [store] table and the store it opens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_influxdb import InfluxStore
from slurm_power.adapters.telemetry_open import open_store
from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.errors import ConfigError

INFLUXDB: dict[str, Any] = {"kind": "influxdb", "url": "http://127.0.0.1:9", "database": "telemetry"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'path = None: kind = "sqlite" needs the file'),
        ({"kind": "mysql"}, "kind = mysql: must be sqlite or influxdb"),
        ({"path": Path("s.db"), "retention_s": 0.0}, "retention_s = 0.0: must be positive"),
        ({"path": Path("s.db"), "flush_period_s": 0.0}, "flush_period_s = 0.0: must be positive"),
        ({"path": Path("s.db"), "memory_max_points": 0}, "memory_max_points = 0: must be at least 1"),
        ({**INFLUXDB, "url": "influx:8086"}, "url = 'influx:8086': must be http"),
        ({**INFLUXDB, "url": "http://me:secret@influx"}, "must be http"),
        ({**INFLUXDB, "database": ""}, "database = '': kind"),
        ({**INFLUXDB, "spool_max_points": 0}, "spool_max_points = 0: must be at least 1"),
        ({**INFLUXDB, "backoff_max_s": 0.0}, "backoff_max_s = 0.0: must be positive"),
    ],
)
def test_a_bad_value_is_named_with_its_rule(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        StoreConfig(**options)
    assert message in str(error.value)


def test_the_sqlite_store_opens_without_touching_the_disk(tmp_path: Path) -> None:
    store = open_store(StoreConfig(path=tmp_path / "telemetry.db"))
    assert isinstance(store, SqliteStore)
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_each_process_may_bring_its_own_spool(tmp_path: Path) -> None:
    store = open_store(StoreConfig(**INFLUXDB), spool=tmp_path / "spool.db")
    assert isinstance(store, InfluxStore)
    store.close()
    with pytest.raises(ConfigError, match="spool = None"):
        open_store(StoreConfig(**INFLUXDB))


@pytest.mark.parametrize(
    ("content", "mode", "rule"),
    [
        ("secret\n", 0o644, "anybody may read it"),
        ("\n", 0o600, "first line must be it, and not empty"),
        (None, 0, "No such file"),
    ],
)
def test_a_token_file_that_will_not_do_is_refused(tmp_path: Path, content: str | None, mode: int, rule: str) -> None:
    token_file = tmp_path / "token"
    if content is not None:
        token_file.write_text(content)
        token_file.chmod(mode)
    with pytest.raises(ConfigError, match=rule) as error:
        open_store(StoreConfig(**INFLUXDB, token_file=token_file), spool=tmp_path / "spool.db")
    assert "secret" not in str(error.value)


def test_an_agent_with_the_sqlite_store_does_not_load_the_influxdb_client() -> None:
    code = (
        "import sys; from pathlib import Path; from slurm_power.adapters.telemetry_open import open_store;"
        "from slurm_power.adapters.telemetry_config import StoreConfig; open_store(StoreConfig(path=Path('x')));"
        "print('influxdb_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
