"""The whole demonstration: one cluster, two runs of one day, one report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_power.demo.day import DayPlan, Progress, run_day, waits_by_name
from slurm_power.demo.load_day import choose_day, profile_of
from slurm_power.demo.report import write_html, write_json
from slurm_power.demo.result import RunResult
from slurm_power.demo.settings import DemoSettings
from slurm_power.demo.stream import draw_stream
from slurm_power.demo.twin_check import start_differences
from slurm_power.errors import ConfigError
from slurm_power.testing.cluster.dev_cluster import DevCluster
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.influxdb_server import InfluxDbServer


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    unmanaged: RunResult
    managed: RunResult
    json_file: Path
    html_file: Path


def run_demo(settings: DemoSettings, *, progress: Callable[[str], Progress]) -> DemoOutcome:
    """`progress` gives, for the name of each run, the callable that is told how far it is.

    Raise ConfigError, NotPermitted or Unavailable when something is missing; what was started is stopped.
    """
    lines = _load_lines(settings)
    day = settings.load_day if settings.load_day is not None else 1 if lines is None else choose_day(lines)
    cluster = _fresh_cluster(settings)
    server = InfluxDbServer(settings.directory / "influxdb") if settings.store == "influxdb" else None
    try:
        if server is not None:
            server.start()
        cluster.up(fresh=True)
        plan = DayPlan(
            settings=settings,
            stream=draw_stream(settings.seed, day_s=settings.day_s),
            profile=profile_of(settings, day=day, lines=lines),
            load_day=day,
            store=lambda label, directory: _store_table(server, label, directory),
        )
        unmanaged = run_day(
            plan, cluster, label="unmanaged", mode="observe", baseline_wait_s={}, progress=progress("unmanaged")
        )
        managed = run_day(
            plan,
            cluster,
            label="managed",
            mode="manage",
            baseline_wait_s=waits_by_name(unmanaged),
            progress=progress("managed"),
        )
    finally:
        cluster.down()
        if server is not None:
            server.stop()
    return _report(settings, day, unmanaged, managed)


def _load_lines(settings: DemoSettings) -> list[str] | None:
    if settings.load_file is None:
        return None
    try:
        return settings.load_file.read_text().splitlines()
    except OSError as cause:
        raise ConfigError(f"--load {settings.load_file}: {cause.strerror}") from cause


def _fresh_cluster(settings: DemoSettings) -> DevCluster:
    """A cluster left behind by a demo that was killed is stopped first; its directory starts empty."""
    directory = settings.directory / "cluster"
    old = DevCluster(directory)
    if directory.exists():
        old.down()
        shutil.rmtree(directory)
    return DevCluster(
        directory,
        ClusterSettings(
            node_count=settings.nodes,
            gpus_per_node=settings.gpus_per_node,
            node_base_watts=settings.node_base_watts,
        ),
    )


def _store_table(server: InfluxDbServer | None, label: str, directory: Path) -> dict[str, Any]:
    if server is None:
        return {"kind": "sqlite", "path": directory / "telemetry.db"}
    database = f"slurm_power_{label}"
    server.create_database(database)
    return {
        "kind": "influxdb",
        "url": server.url,
        "database": database,
        "spool": directory / "spool.db",
    }


def _report(settings: DemoSettings, day: str | int, unmanaged: RunResult, managed: RunResult) -> DemoOutcome:
    json_file, html_file = settings.directory / "report.json", settings.directory / "demo-report.html"
    about: dict[str, object] = {
        "seed": settings.seed,
        "day": f"{settings.day_s:.0f} s; one real second is {settings.compression:.0f} s of the day",
        "measured": f"{settings.window_fraction:g} days in both runs, from the simulated site's own record",
        "cluster": f"real Slurm, {settings.nodes} nodes x {settings.gpus_per_node} emulated GPUs",
        "building load": "generated" if settings.load_file is None else f"{settings.load_file.name}, day {day}",
        "prices": f"energy per kWh {settings.energy_price_per_kwh}, from 16 to 21 h "
        f"{settings.energy_peak_price_per_kwh}, demand per kW and month {settings.demand_price_per_kw}",
        "bill": "this day's energy, as if it had lasted 24 h, and the demand charge of the month whose peak it sets",
        "store": settings.store,
    }
    twin = start_differences(unmanaged.spans, draw_stream(settings.seed, day_s=settings.day_s), settings)
    if twin is not None:
        about["replay twin"] = (
            f"starts the {twin.jobs} jobs of the unmanaged run within {twin.median_s:.1f} s of the real slurmctld "
            f"(median; 95 %: {twin.p95_s:.1f} s, worst: {twin.worst_s:.1f} s)"
        )
    write_json(json_file, unmanaged, managed, about=about)
    write_html(html_file, unmanaged, managed, about=about)
    return DemoOutcome(unmanaged, managed, json_file, html_file)
