"""How long one plan of 24 h in 15-minute slots takes: all margins solved, and played over a month of errors."""

from __future__ import annotations

import math
import statistics
import time

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.dispatch import plan_dispatch
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.forecasting.forecast import QUANTILES, LoadForecast, SeriesForecast

SLOTS, SLOT_S = 96, 900.0
ROUNDS = 15
START_WALL_S = 1_700_006_400.0
RATES = Tariff(
    energy_prices=(
        EnergyPrice(start_s=0.0, price_per_kwh=0.09),
        EnergyPrice(start_s=16 * 3600.0, price_per_kwh=0.17),
        EnergyPrice(start_s=21 * 3600.0, price_per_kwh=0.09),
    ),
    demand_price_per_kw=20.0,
)
DAYS_OF_ERRORS = 30


def measure() -> float:
    """Median seconds of one plan, model building included."""
    times_s = []
    for round_number in range(ROUNDS):
        forecast = _forecast(round_number)
        started_s = time.perf_counter()
        plan_dispatch(
            forecast,
            rates=RATES,
            ledger=DemandLedger().with_interval(RATES, start_wall_s=START_WALL_S, watts=1e6),
            battery=BatteryLimits(capacity_joules=3.6e9, max_charge_watts=5e5, max_discharge_watts=5e5),
            site=SiteLimits(grid_limit_watts=1e7, it_max_watts=3e6, pue=1.3),
            config=PlannerConfig(slot_s=SLOT_S),
            now_wall_s=START_WALL_S,
            stored_joules=1.8e9,
        )
        times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s)


def _forecast(round_number: int) -> LoadForecast:
    """A day with an evening peak; each round another one, so that nothing can be reused."""
    building = [2e6 + 8e5 * math.sin((i + round_number) * math.tau / SLOTS) for i in range(SLOTS)]
    it_load = [1e6 + 5e5 * math.sin((2 * i + 3 * round_number) * math.tau / SLOTS) for i in range(SLOTS)]
    return LoadForecast(inflexible=_series(building), it=_series(it_load))


def _series(watts: list[float]) -> SeriesForecast:
    bands = {q: tuple(value * (0.8 + 0.4 * q) for value in watts) for q in QUANTILES}
    errors = [[0.03 * value * math.sin(i + day) for i, value in enumerate(watts)] for day in range(DAYS_OF_ERRORS)]
    return SeriesForecast(start_wall_s=START_WALL_S, slot_s=SLOT_S, watts=bands, model="bench", errors=errors)
