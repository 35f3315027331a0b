"""Forecast, plan, fast dispatch, guard and meter together on a site that answers: peaks fall, none is charged."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.bill import bill, metering_intervals
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.dispatch import plan_dispatch
from slurm_power.ess.fast_dispatch import next_setpoint
from slurm_power.ess.guard import Following, SiteLimits, guard_setpoint
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.forecasting.forecast import QUANTILES, LoadForecast, Sample, SeriesForecast
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.monitoring.metering import MeteringInterval
from slurm_power.monitoring.readings import EssReading, GridReading

SLOT_S, DAY_SLOTS, STEPS = 10.0, 24, 5  # a day of four minutes
DAY_S = SLOT_S * DAY_SLOTS
TARIFF = Tariff(
    energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=1.0), EnergyPrice(start_s=80.0, price_per_kwh=2.0)),
    period_s=DAY_S,
    demand_price_per_kw=20.0,
    metering_interval_s=SLOT_S,
    billing_period_s=DAY_S,
)
BATTERY = BatteryLimits(
    capacity_joules=200_000.0, max_charge_watts=2000.0, max_discharge_watts=2500.0, reserve_fraction=0.05
)
SITE = SiteLimits(grid_limit_watts=20_000.0, it_max_watts=1.0, pue=1.0)
PLANNER = PlannerConfig(slot_s=SLOT_S, horizon_s=DAY_S)
FORECASTER = NaiveForecaster(
    ForecastConfig(period_s=DAY_S, residual_window_s=5 * DAY_S, bias_window_s=30.0, bias_decay_s=60.0, min_errors=10),
    slot_s=SLOT_S,
)


def site_load(days: int, *, seed: int) -> list[float]:
    """A building with one broad afternoon peak a day and noise."""
    rng = random.Random(seed)
    shape = [4000 + 4000 * math.exp(-(((slot - 15) / 2.5) ** 2)) for slot in range(DAY_SLOTS)]
    return [shape[i % DAY_SLOTS] + rng.gauss(0, 150) for i in range(days * DAY_SLOTS)]


def run(load: Sequence[float], *, from_slot: int) -> tuple[list[float], list[float]]:
    """Mean grid import and charged watts of each slot."""
    stored, ledger, grid_watts, charged = 100_000.0, DemandLedger(), [], []
    interval = MeteringInterval.starting(length_s=SLOT_S, max_gap_s=5.0, wall_s=from_slot * SLOT_S)
    nothing = dict.fromkeys(QUANTILES, (0.0,) * DAY_SLOTS)
    setpoint = EssSetpoint()
    for slot in range(from_slot, len(load)):
        wall_s = slot * SLOT_S
        history = [Sample(i * SLOT_S, load[i]) for i in range(slot)]
        plan = plan_dispatch(
            LoadForecast(
                FORECASTER.forecast(history, start_wall_s=wall_s, slots=DAY_SLOTS),
                SeriesForecast(wall_s, SLOT_S, nothing, "none"),
            ),
            rates=TARIFF, ledger=ledger, battery=BATTERY, site=SITE, config=PLANNER,
            now_wall_s=wall_s, stored_joules=stored,
        )  # fmt: skip
        joules = charged_joules = 0.0
        for step in range(STEPS):
            at_s, step_s = wall_s + step * SLOT_S / STEPS, SLOT_S / STEPS
            interval, closed = interval.observe(
                watts=load[slot] + setpoint.charge_watts - setpoint.discharge_watts, wall_s=at_s
            )
            for one in closed:
                ledger = ledger.with_interval(TARIFF, start_wall_s=one.start_wall_s, watts=one.average_watts or 0.0)
            ess = EssReading(
                stored / BATTERY.capacity_joules, None, BATTERY.capacity_joules, 2000.0, 2500.0,
                setpoint.charge_watts, setpoint.discharge_watts, True, (), at_s,
            )  # fmt: skip
            grid = GridReading(load[slot] + setpoint.charge_watts - setpoint.discharge_watts, 0.0, at_s)
            wanted = next_setpoint(
                plan.slot_at(at_s), target_watts=plan.target_watts, interval=interval, grid=grid, ess=ess,
                battery=BATTERY, wall_s=at_s, command_s=step_s,
            )  # fmt: skip
            setpoint = guard_setpoint(
                wanted.setpoint, state=Following(), grid=grid, ess=ess, target_watts=plan.target_watts,
                limits=SITE, battery=BATTERY, now_s=at_s,
            ).setpoint  # fmt: skip
            stored += step_s * (
                setpoint.charge_watts * BATTERY.charge_efficiency
                - setpoint.discharge_watts / BATTERY.discharge_efficiency
            )
            joules += step_s * (load[slot] + setpoint.charge_watts - setpoint.discharge_watts)
            charged_joules += step_s * setpoint.charge_watts
        grid_watts.append(joules / SLOT_S)
        charged.append(charged_joules / SLOT_S)
    return grid_watts, charged


def test_once_it_has_seen_a_day_the_peak_and_the_bill_fall_and_no_peak_is_charged() -> None:
    load, first = site_load(3, seed=3), DAY_SLOTS
    grid_watts, charged = run(load, from_slot=first)
    plain = bill(metering_intervals(load[first:], start_wall_s=first * SLOT_S, step_s=SLOT_S), tariff=TARIFF)
    ours = bill(metering_intervals(grid_watts, start_wall_s=first * SLOT_S, step_s=SLOT_S), tariff=TARIFF)
    assert ours.peak_watts < 0.85 * plain.peak_watts
    assert ours.total < plain.total
    for day in range(2):
        slots = range(day * DAY_SLOTS, (day + 1) * DAY_SLOTS)
        highest = max(slots, key=lambda slot: grid_watts[slot])
        assert grid_watts[highest] <= max(load[first + slot] for slot in slots)
        assert charged[highest] < 0.05 * grid_watts[highest]


def test_a_day_without_any_history_is_not_dearer_than_without_a_battery() -> None:
    load = site_load(1, seed=5)
    grid_watts, _ = run(load, from_slot=1)
    plain = bill(metering_intervals(load[1:], start_wall_s=SLOT_S, step_s=SLOT_S), tariff=TARIFF)
    ours = bill(metering_intervals(grid_watts, start_wall_s=SLOT_S, step_s=SLOT_S), tariff=TARIFF)
    assert ours.demand_cost <= plain.demand_cost + 1e-6
