"""A recorded load under the product's planner: what must hold whatever the record, and cases with a known answer."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.rates import Rates
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.ess.urdb import parse_urdb
from slurm_power.forecasting.forecast import QUANTILES, SeriesForecast
from slurm_power.replay.site_load import (
    Forecast,
    SiteLoad,
    best_threshold_bill,
    charge_created_peaks,
    limits_broken,
    months_of,
    perfect_forecast,
    perfect_import,
    run_planned,
    threshold_runs,
    week_ago_forecast,
)
from tests.urdb_rates import FLAT_RATE, dear_hours

HOUR_S, KWH = 3600.0, 3.6e6
NEW_YORK = ZoneInfo("America/New_York")
CONFIG = PlannerConfig(slot_s=HOUR_S, headroom_fraction=0.0, ramp_cost_fraction=0.0)
FLAT = Tariff(energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.1),), demand_price_per_kw=10.0)


def battery(**changes: float) -> BatteryLimits:
    values = {
        "capacity_joules": 4 * KWH,
        "max_charge_watts": 2000.0,
        "max_discharge_watts": 2000.0,
        "min_stored_fraction": 0.0,
        "max_stored_fraction": 1.0,
        "reserve_fraction": 0.0,
        "charge_efficiency": 0.95,
        "discharge_efficiency": 0.95,
    }
    return BatteryLimits(**(values | changes))


def case(watts: list[float], *, start_wall_s: float = 0.0, rates: Rates = FLAT, stored_kwh: float = 2.0) -> SiteLoad:
    return SiteLoad(
        start_wall_s=start_wall_s, slot_s=HOUR_S, watts=np.array(watts), rates=rates, battery=battery(),
        stored_joules=stored_kwh * KWH,
    )  # fmt: skip


def days(count: int, *, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    shape = [4000 + 3000 * math.exp(-(((hour - 17) / 3) ** 2)) for hour in range(24)]
    return [max(0.0, shape[i % 24] + rng.gauss(0, 300)) for i in range(24 * count)]


def cost(one: SiteLoad, forecast: Forecast) -> float:
    return one.bill_of(run_planned(one, forecast, config=CONFIG).import_watts).total


def test_with_the_next_day_known_the_saving_is_close_to_the_bound() -> None:
    one = case(days(10))
    none, bound = one.bill_of(one.watts).total, one.bill_of(perfect_import(one).import_watts).total
    ours = cost(one, perfect_forecast(one, 24))
    assert bound < ours < none
    assert (none - ours) > 0.9 * (none - bound)


def test_the_bound_is_a_bound_for_the_best_threshold_too() -> None:
    one = case(days(10))
    assert (
        one.bill_of(perfect_import(one).import_watts).total <= best_threshold_bill(one) <= one.bill_of(one.watts).total
    )


def test_a_single_threshold_takes_from_the_battery_what_is_above_it_and_charges_below() -> None:
    one = replace(
        case([1000.0, 3000.0, 1000.0], stored_kwh=1.0), battery=battery(charge_efficiency=1.0, discharge_efficiency=1.0)
    )
    (found,) = threshold_runs(one, np.array([2000.0]))
    assert found.tolist() == [2000.0, 2000.0, 2000.0]


@pytest.mark.parametrize("seed", range(3))
def test_no_limit_is_broken_and_no_peak_is_charged_however_wrong_the_forecast(seed: int) -> None:
    one, rng = case(days(6, seed=seed)), random.Random(seed)

    def nonsense(slot: int) -> SeriesForecast:
        watts = sorted(rng.uniform(0, 12_000) for _ in range(len(QUANTILES)))
        bands = {q: (level,) * 24 for q, level in zip(QUANTILES, watts, strict=True)}
        errors = [[rng.gauss(0, 1500) for _ in range(24)] for _ in range(20)]
        return SeriesForecast(slot * HOUR_S, HOUR_S, bands, "nonsense", errors)

    run = run_planned(one, nonsense, config=CONFIG)
    assert (limits_broken(one, run), charge_created_peaks(one, run)) == (0, 0)


def test_a_broken_limit_and_a_charged_peak_are_seen() -> None:
    one = case([1000.0, 1000.0])
    run = perfect_import(one)
    charged = replace(run, import_watts=np.array([3000.0, 1000.0]), charge_watts=np.array([2000.0, 0.0]))
    assert charge_created_peaks(one, charged) == 1
    assert limits_broken(one, replace(run, stored_joules=np.array([-1000.0, 5 * KWH]))) == 2


def test_one_bad_meter_hour_costs_no_more_than_the_peak_it_makes_believe() -> None:
    """A spike that was never drawn is taken for a load: it is shaved as far as the battery goes, and billed once."""
    watts = days(4)
    watts[50] = 20_000.0
    one = case(watts)
    run = run_planned(one, week_ago_forecast(np.array(days(8)), one, 24), config=CONFIG)
    assert run.import_watts[50] < 20_000.0
    assert limits_broken(one, run) == 0
    assert run.import_watts[51:].max() <= run.import_watts[50]


def test_while_the_pcs_is_out_the_load_is_imported_as_it_is_and_afterwards_shaved_again() -> None:
    one = case(days(4))
    forecast = perfect_forecast(one, 24)
    run = run_planned(one, forecast, config=CONFIG, outage=lambda slot: 40 <= slot < 46)
    assert run.import_watts[40:46].tolist() == one.watts[40:46].tolist()
    assert run.discharge_watts[46:].sum() > 0


def test_energy_that_is_gone_after_a_jump_of_the_state_of_charge_is_not_counted_on() -> None:
    full, empty = case(days(2), stored_kwh=4.0), case(days(2), stored_kwh=0.0)
    forecast = perfect_forecast(full, 24)
    assert limits_broken(empty, run_planned(empty, forecast, config=CONFIG)) == 0
    assert cost(full, forecast) <= cost(empty, forecast)


def test_a_month_roll_over_starts_new_peaks_and_both_months_save() -> None:
    start = datetime(2024, 5, 28, tzinfo=UTC).timestamp()
    one = case(days(8), start_wall_s=start, rates=parse_urdb(FLAT_RATE | dear_hours(range(12, 20)), zone=UTC))
    run = run_planned(one, perfect_forecast(one, 24), config=CONFIG)
    months = months_of(one, [one.watts, run.import_watts])
    assert len(months) == 2
    assert all(ours < none for _, (none, ours) in months)
    assert sum(none for _, (none, _) in months) == pytest.approx(one.bill_of(one.watts).total)


@pytest.mark.parametrize("day", [datetime(2024, 3, 10), datetime(2024, 11, 3)], ids=["23-hours", "25-hours"])
def test_on_a_day_of_daylight_saving_the_battery_follows_the_sites_own_clock(day: datetime) -> None:
    """Dear from noon to eight by the clock on the wall: that is another hour of UTC from this day on."""
    dear = range(12, 20)
    start = (day - timedelta(days=1)).replace(tzinfo=NEW_YORK).timestamp()
    rate = FLAT_RATE | {"flatdemandstructure": [[{"rate": 0.0}]]} | dear_hours(dear, weekends=True)
    one = case([5000.0] * 72, start_wall_s=start, rates=parse_urdb(rate, zone=NEW_YORK))
    run = run_planned(one, perfect_forecast(one, 24), config=CONFIG)
    hours = [datetime.fromtimestamp(start + slot * HOUR_S, NEW_YORK).hour for slot in range(72)]
    discharged = {hour for hour, watts in zip(hours, run.discharge_watts, strict=True) if watts > 1.0}
    assert discharged
    assert discharged <= set(dear)
    assert limits_broken(one, run) == charge_created_peaks(one, run) == 0
    assert one.bill_of(run.import_watts).total < one.bill_of(one.watts).total


def test_under_a_ratchet_last_months_peak_is_not_fought_again() -> None:
    """100 % of the highest month of a year: after a June peak of 9 kW a July of 6 kW is billed as 9 kW anyway."""
    rates = parse_urdb(FLAT_RATE | {"lookbackpercent": 1.0, "lookbackrange": 11}, zone=UTC)
    june = [5000.0] * 20 + [9000.0] * 4
    july = [4000.0] * 20 + [6000.0] * 4
    one = case(june + july, start_wall_s=datetime(2024, 6, 30, tzinfo=UTC).timestamp(), rates=rates)
    run = run_planned(one, perfect_forecast(one, 24), config=CONFIG)
    assert run.discharge_watts[:24].sum() > 0
    assert run.discharge_watts[24:].sum() == pytest.approx(0.0, abs=1.0)
