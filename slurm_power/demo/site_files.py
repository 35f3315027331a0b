"""The two TOML files of one demo run: the simulated site's and the controller's. Pure text.

All times are real seconds of the compressed day. Energy prices are multiplied by the compression, so that
the compressed day's energy costs what a whole day's would; prices per kWh and hour by its square.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from slurm_power.demo.settings import DemoSettings

Value = str | int | float | bool | list[int] | list[str] | list[dict[str, float]] | Path
Tables = Mapping[str, Mapping[str, Value | None]]


def simulated_site_toml(
    settings: DemoSettings,
    *,
    start_wall_s: float,
    node_state_files: list[str],
    load_day: str | int,
    directory: Path,
) -> str:
    return to_toml(
        {
            "site": {
                "pue": settings.pue,
                "start_wall_s": start_wall_s,
                "node_state_files": node_state_files,
                "truth_log": directory / "truth.csv",
                "ready_file": directory / "site.ready",
                "control_socket": directory / "site.sock",
            },
            "load": {
                "day_s": settings.day_s,
                "mean_watts": settings.building_mean_watts,
                "peak_watts": settings.building_peak_watts,
                "csv_file": settings.load_file,
                "day": load_day,
                "seed": settings.seed,
            },
            "battery": {
                "rated_joules": settings.battery_joules,
                "health_fraction": 1.0,
                "max_charge_watts": settings.battery_watts,
                "max_discharge_watts": settings.battery_watts,
                "initial_stored_fraction": 0.5,
            },
            "pcs": {"max_watts": settings.battery_watts, "ramp_percent_per_s": 100},
        }
    )


def controller_toml(
    settings: DemoSettings,
    *,
    mode: str,
    start_wall_s: float,
    bus_port: int,
    listen_port: int,
    munge_socket: Path,
    node_directories: Path,
    directory: Path,
    store: Mapping[str, Value | None],
) -> str:
    slot_s, day_s = settings.slot_s, settings.day_s
    return to_toml(
        {
            "site": {
                "grid_limit_watts": 60_000.0,
                "it_max_watts": settings.it_max_watts,
                "pue": settings.pue,
                "max_reading_age_s": 4.0,
                "hold_s": 10.0,
                "command_s": 1.0,
            },
            "tariff": {
                "period_s": day_s,
                "energy_prices": [
                    {"start_s": 0.0, "price_per_kwh": settings.energy_price_per_kwh * settings.compression},
                    {
                        "start_s": day_s * 16 / 24,
                        "price_per_kwh": settings.energy_peak_price_per_kwh * settings.compression,
                    },
                    {"start_s": day_s * 21 / 24, "price_per_kwh": settings.energy_price_per_kwh * settings.compression},
                ],
                "demand_price_per_kw": settings.demand_price_per_kw,
                "metering_interval_s": slot_s,
                # The month ends with this day: what tomorrow needs is the next month's bill.
                "billing_period_s": math.ceil((1 + settings.window_fraction) * settings.slots_per_day) * slot_s,
                "anchor_wall_s": start_wall_s - day_s,
            },
            "battery": {
                "capacity_joules": settings.battery_joules,
                "max_charge_watts": settings.battery_watts,
                "max_discharge_watts": settings.battery_watts,
                "reserve_fraction": 0.05,
            },
            "planner": {
                "slot_s": slot_s,
                "horizon_s": day_s,
                "it_quantile": settings.it_quantile,
                "shed_price_per_kwh": settings.shed_price_per_kwh * settings.compression,
                "delay_price_per_kwh_hour": settings.delay_price_per_kwh_hour * settings.compression**2,
            },
            "forecast": {
                "period_s": day_s,
                "residual_window_s": 2 * day_s,
                "bias_window_s": 3 * slot_s,
                "bias_decay_s": day_s / 8,
                "queue_trust_s": day_s / 6,
            },
            "relocation": {
                "license_total_watts": int(settings.it_max_watts),
                "gpu_max_watts": settings.gpu_max_watts,
                "gpu_idle_watts": settings.gpu_idle_watts,
                "min_gpu_cap_watts": 200.0,
                "node_base_watts": float(settings.node_base_watts),
                "default_max_delay_s": 0.6 * day_s,
                "reservation_horizon_s": 0.6 * day_s,
                "min_reservation_horizon_s": 2 * slot_s,
                "min_deferral_s": slot_s,
                "max_deferred_fraction": 1.0,
                "default_max_slowdown_fraction": 0.2,
            },
            "pcs": {"host": "127.0.0.1", "port": bus_port, "unit_id": 1, "timeout_s": 1.0, "revert_s": 6.0},
            "meter": {
                "host": "127.0.0.1",
                "port": bus_port,
                "unit_id": 2,
                "timeout_s": 1.0,
                "import_is_positive": True,
            },
            "store": store,
            "slurm": {"adapter": "command", "partition": "main"},
            "agent": {
                "safe_cap_watts": settings.gpu_safe_cap_watts,
                "node_base_watts": float(settings.node_base_watts),
                "controller_url": f"http://127.0.0.1:{listen_port}",
                "sample_period_s": 0.5,
                "report_period_s": 1.0,
                "telemetry_flush_s": 5.0,
                "socket": node_directories / "%n" / "agent.sock",
                "journal": node_directories / "%n" / "journal.json",
                "spool": node_directories / "%n" / "spool.db" if store["kind"] == "influxdb" else None,
                "munge_socket": munge_socket,
                "requests_per_s": 1000.0,
            },
            "controller": {
                "mode": mode,
                "tick_period_s": min(slot_s / 2, 5.0),
                "fast_period_s": 0.5,
                "lease_s": 15.0,
                "max_reading_age_s": 4.0,
                "history_s": 3 * day_s,
                "listen_port": listen_port,
                "munge_socket": munge_socket,
                "state_path": directory / "billing.json",
            },
        }
    )


def to_toml(tables: Tables) -> str:
    """Tables of plain values; None is left out."""
    lines: list[str] = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _value(value: Value) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_inline(item) if isinstance(item, dict) else json.dumps(item) for item in value) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _inline(table: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + "}"
