"""`make bench-telemetry`: points a second into both stores, bytes a point, what an outage loses, a report over a week.

A point is one reading of one GPU with its 11 fields: 1,000 nodes of 8 GPUs give 8,000 a second. The readings are made
up. What other processes of the machine take is missing here: points for each second of CPU stand beside the rate.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from slurm_power.adapters.telemetry_influxdb import InfluxStore
from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.errors import ConfigError
from slurm_power.ports.telemetry_store import FieldValue, Point, TelemetryStore
from slurm_power.testing.influxdb_server import InfluxDbServer

OUTPUT = Path("build/bench/telemetry.json")
GPUS = 8000
BEGIN_S = 1_790_000_000.123456
SQLITE_SECONDS, INFLUXDB_SECONDS, OUTAGE_SECONDS = 60, 30, 6
MEMORY_POINTS = 200_000
FLUSH_S = 600.0
_TAGS = [{"node": f"n{gpu // 8:04}", "uuid": f"GPU-{gpu:08x}-5a1e-4c5b-9d77-0242ac120002"} for gpu in range(GPUS)]

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Rate:
    points_per_s: float
    points_per_cpu_s: float  # of this process


def main() -> None:
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="slurm-power-bench-") as name:
        figures = measure(Path(name), console)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table("what", "seen")
    for key, value in figures.items():
        table.add_row(key, "not measured" if value is None else f"{value:,.4g}")
    console.print(table)
    console.print(f"Written to {OUTPUT}")


def measure(directory: Path, console: Console) -> Figures:
    figures: Figures = {}
    console.print(f"SQLite: {GPUS:,} GPUs, {SQLITE_SECONDS} readings of each")
    figures |= into_sqlite(directory)
    console.print(f"InfluxDB: {INFLUXDB_SECONDS} readings, then an outage")
    figures |= into_influxdb(directory)
    console.print("the quality report of a week on 8 GPUs")
    return {**figures, **week_report()}


def into_sqlite(directory: Path) -> Figures:
    file = directory / "telemetry.db"
    store = SqliteStore(file, retention_s=9e9, memory_max_points=MEMORY_POINTS, flush_period_s=0.2)
    rate = sustained(store, SQLITE_SECONDS)
    lost = store.dropped()
    store.close()
    return {
        "sqlite_points_per_s": rate.points_per_s,
        "sqlite_points_per_cpu_s": rate.points_per_cpu_s,
        "bytes_per_sample": file.stat().st_size / (GPUS * SQLITE_SECONDS),
        "sqlite_points_lost": float(lost),
    }


def into_influxdb(directory: Path) -> Figures:
    """A real server (Debian's 1.6) on the same cores. None where it is not installed."""
    names = ("influxdb_points_per_s", "influxdb_points_per_cpu_s", "influxdb_server_points_per_cpu_s")
    try:
        with InfluxDbServer(directory / "influxdb") as server:
            return dict(zip(names, _influxdb_rates(server, directory), strict=True)) | {
                "points_lost_store_outage": _lost_in_an_outage(server, directory)
            }
    except ConfigError as failure:
        Console(stderr=True).print(str(failure))
        return dict.fromkeys((*names, "points_lost_store_outage"))


def _influxdb_rates(server: InfluxDbServer, directory: Path) -> tuple[float, float, float]:
    store = _influxdb(server, directory, "rate")
    store.write(next(batches(1)))  # series are made once, not every second
    store.flush(FLUSH_S)
    before_s = _server_cpu_s(directory)
    rate = sustained(store, INFLUXDB_SECONDS)
    served = GPUS * INFLUXDB_SECONDS / (_server_cpu_s(directory) - before_s)
    store.close()
    return rate.points_per_s, rate.points_per_cpu_s, served


def _lost_in_an_outage(server: InfluxDbServer, directory: Path) -> float:
    """The database goes down in the middle and comes back; every point that was written is counted there."""
    store = _influxdb(server, directory, "outage")
    for second, batch in enumerate(batches(3 * OUTAGE_SECONDS)):
        if second == OUTAGE_SECONDS:
            server.stop_database()
        if second == 2 * OUTAGE_SECONDS:
            server.start()
        _write(store, batch)
    assert store.flush(FLUSH_S), "the store did not come back"
    store.close()
    asked = {"db": "outage", "q": "SELECT count(draw_watts) FROM gpu"}
    answer = httpx.get(f"{server.url}/query", params=asked, timeout=120.0, trust_env=False).json()
    there = answer["results"][0]["series"][0]["values"][0][1]
    return float(3 * OUTAGE_SECONDS * GPUS - there)


def _influxdb(server: InfluxDbServer, directory: Path, database: str) -> InfluxStore:
    server.create_database(database)
    return InfluxStore(
        url=server.url,
        org="bench",
        database=database,
        token="",
        spool=directory / f"{database}-spool.db",
        memory_max_points=MEMORY_POINTS,
        flush_period_s=0.2,
        timeout_s=60.0,
    )


def sustained(store: TelemetryStore, seconds: int) -> Rate:
    """As fast as the store takes them, until the last one is safe there."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for batch in batches(seconds):
        _write(store, batch)
    assert store.flush(FLUSH_S), "the store did not take all points"
    points = seconds * GPUS
    return Rate(points / (time.perf_counter() - began_s), points / (time.process_time() - began_cpu_s))


def _write(store: TelemetryStore, batch: list[Point]) -> None:
    while store.pending() > MEMORY_POINTS - GPUS:
        time.sleep(0.01)
    store.write(batch)


def batches(seconds: int) -> Iterator[list[Point]]:
    """One for each second."""
    variants = [[_fields(gpu, variant) for gpu in range(GPUS)] for variant in range(4)]
    for second in range(seconds):
        fields = variants[second % len(variants)]
        yield [Point("gpu", BEGIN_S + second, fields[gpu], _TAGS[gpu]) for gpu in range(GPUS)]


def _fields(gpu: int, variant: int) -> dict[str, FieldValue]:
    return {
        "draw_watts": 412.123 + gpu % 97 + 13.7 * variant,
        "energy_joules": 1.234e9 + 1e5 * gpu + 400.25 * variant,
        "sm_clock_mhz": 1980.0 - 15.0 * variant,
        "memory_clock_mhz": 2619.0,
        "temperature_celsius": 60.0 + (gpu + variant) % 9,
        "utilisation_fraction": 0.97,
        "throttle_reasons": float(4 * (variant % 2)),
        "power_violation_s": 12.3 + 0.01 * variant,
        "thermal_violation_s": 0.0,
        "cap_watts": 700.0,
        "cap_source": "found",
    }


def _server_cpu_s(directory: Path) -> float:
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "influxd" and any(str(directory) in part for part in process.info["cmdline"]):
            times = process.cpu_times()
            return float(times.user + times.system)
    raise RuntimeError("influxd is not running")


def week_report() -> Figures:
    """None where that bench is not there."""
    keys = ("sla_report_s_week_8_gpus", "sla_report_peak_rss_bytes")
    try:
        found = importlib.import_module("bench.sla_report").measure()
    except ModuleNotFoundError:
        return dict.fromkeys(keys)
    return {key: found[key] for key in keys}


if __name__ == "__main__":
    main()
