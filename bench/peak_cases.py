"""One recorded load under one rate: our bill beside the bound, the best fixed rule and a plain predictive one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.peak_loads import Recorded, site
from slurm_power.ess.cell_wear import CellLife, wear_of
from slurm_power.forecasting.rolling import Rolled
from slurm_power.replay.judged_load import judge
from slurm_power.replay.learned import learned_forecast
from slurm_power.replay.site_load import (
    charge_created_peaks,
    limits_broken,
    months_of,
    perfect_forecast,
    week_ago_forecast,
)


def measure(
    recorded: Recorded, rolled: Rolled, tariff: str, *, power_fraction: float, progress: Callable[[str, float], None]
) -> dict[str, Any]:
    case = site(recorded, tariff, power_fraction=power_fraction)
    horizon, before = recorded.series.period, recorded.series.watts[: recorded.first]
    forecasts = {
        "ours": learned_forecast(recorded.series, rolled, recorded.first),
        "naive_mpc": week_ago_forecast(before, case, horizon),
        "ours_perfect_24h": perfect_forecast(case, horizon),
    }
    found = judge(case, forecasts, tell=progress)
    bills, captured, ours = found.bills, found.captured_fractions, found.runs["ours"]
    months = months_of(case, [case.watts, ours.import_watts])
    wear = wear_of((ours.stored_joules / case.battery.capacity_joules).tolist(), CellLife())
    return {
        **{f"bill_{name}": round(value, 2) for name, value in bills.items()},
        "ours_above_perfect_fraction": bills["ours"] / bills["perfect"] - 1,
        "saving_captured_fraction": {name: captured[name] for name in ("threshold_hindsight", *forecasts)},
        "months_dearer_than_none": sum(own > none + 0.005 for _, (none, own) in months),
        "worst_month_fraction": max(own / none - 1 for _, (none, own) in months),
        "full_cycles": wear.full_cycles,
        "cell_life_used_fraction": wear.used_fraction,
        "charge_created_peaks": charge_created_peaks(case, ours),
        "hard_violations": limits_broken(case, ours),
    }
