"""Money to the cent, on bills that can be worked out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from slurm_power.ess.bill import BilledInterval, bill
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.rate_parts import Lookback, Tier, YearHours
from slurm_power.ess.rate_schedule import CoincidentWindows, DemandPeriod, EnergyPeriod, RateSchedule
from slurm_power.ess.rates import FixedCharge, demand_charges

KW = 1000.0
NEW_YORK = ZoneInfo("America/New_York")


def schedule(**changes: object) -> RateSchedule:
    values: dict[str, object] = {"name": "test", "energy": (EnergyPeriod("all", YearHours.always(), (Tier(0.1),)),)}
    return RateSchedule(**(values | changes))  # type: ignore[arg-type]


def at(year: int, month: int, day: int, hour: int = 0, *, zone: tzinfo = UTC) -> float:
    return datetime(year, month, day, hour, tzinfo=zone).timestamp()


def flat(watts: float, *, start: float, end: float, step_s: float = 900.0) -> list[BilledInterval]:
    return [BilledInterval(s, step_s, watts * step_s) for s in np.arange(start, end, step_s).tolist()]


def year_of(peaks_kw: dict[int, float], *, base_kw: float = 0.0, year: int = 2019) -> list[BilledInterval]:
    """`base_kw` all the time, and once in the middle of each named month (1 is January) its peak."""
    starts = [at(year, month, 1) for month in range(1, 13)] + [at(year + 1, 1, 1)]
    found = []
    for month, (begin, end) in enumerate(pairwise(starts), start=1):
        found += flat(base_kw * KW, start=begin, end=end, step_s=3600.0)
        if month in peaks_kw:
            middle = found[-300]
            found[-300] = BilledInterval(middle.start_wall_s, 3600.0, peaks_kw[month] * KW * 3600.0)
    return found


def cold_and_warm(lookback: Lookback) -> tuple[DemandPeriod, ...]:
    """10.5 per kW from November to April, 11.5 from May to October."""
    warm = frozenset(range(4, 10))
    return (
        DemandPeriod("cold", YearHours.always(frozenset(range(12)) - warm), (Tier(10.5),), lookback),
        DemandPeriod("warm", YearHours.always(warm), (Tier(11.5),), lookback),
    )


def test_a_ratchet_bills_a_third_of_januarys_peak_for_the_rest_of_the_year() -> None:
    rates = schedule(demand=cold_and_warm(Lookback(fraction=0.35, range_months=11)))
    due = bill(year_of({1: 100.0}), tariff=rates)
    assert due.demand_cost == pytest.approx(100 * (10.5 + 0.35 * 10.5 * 5 + 0.35 * 11.5 * 6), abs=0.005)


def test_only_the_marked_months_set_a_ratchet() -> None:
    """January 200, April 400, June 500 (not marked), December 300: at 75 % April's 400 is 300 for a year."""
    lookback = Lookback(fraction=0.75, range_months=12, months=frozenset({0, 3, 11}))
    rates = schedule(demand=(DemandPeriod("maximum", YearHours.always(), (Tier(1.0),), lookback),))
    peaks = {1: 200.0, 4: 400.0, 6: 500.0, 12: 300.0}
    last_year = bill(year_of(peaks, base_kw=100.0, year=2018), tariff=rates).ledger
    due = bill(year_of(peaks, base_kw=100.0), tariff=rates, ledger=last_year)
    billed_kw = [line.amount for line in due.lines if line.kind == "demand"]
    assert billed_kw == pytest.approx([300, 300, 300, 400, 300, 500, 300, 300, 300, 300, 300, 300])


def test_koreas_ratchet_forgets_spring_but_never_the_contract() -> None:
    months = frozenset({11, 0, 1, 6, 7, 8})
    lookback = Lookback(fraction=1.0, range_months=11, months=months, floor_watts=0.3 * 1000 * KW)
    rates = schedule(demand=(DemandPeriod("maximum", YearHours.always(), (Tier(8320.0),), lookback),))
    due = bill(year_of({5: 900.0, 8: 800.0}, base_kw=100.0), tariff=rates)
    billed_kw = [line.amount for line in due.lines if line.kind == "demand"]
    assert billed_kw == pytest.approx([300] * 4 + [900] + [300] * 2 + [800] * 5)


def test_a_ledger_that_was_written_and_read_bills_the_same() -> None:
    rates = schedule(demand=cold_and_warm(Lookback(fraction=0.35, range_months=11)))
    first, rest = year_of({1: 100.0})[:744], year_of({1: 100.0})[744:]
    ledger = bill(first, tariff=rates).ledger
    again = DemandLedger.from_records(ledger.to_records())
    whole = bill(year_of({1: 100.0}), tariff=rates).demand_cost
    assert bill(first, tariff=rates).demand_cost + bill(rest, tariff=rates, ledger=again).demand_cost == pytest.approx(
        whole
    )


def test_tiers_are_filled_one_after_the_other() -> None:
    rates = schedule(
        energy=(EnergyPeriod("all", YearHours.always(), (Tier(0.2, up_to=1000.0), Tier(0.1))),),
        demand=(DemandPeriod("maximum", YearHours.always(), (Tier(5.0, up_to=10.0), Tier(20.0))),),
    )
    due = bill(flat(30 * KW, start=at(2019, 3, 1), end=at(2019, 3, 3)), tariff=rates)
    assert due.energy_cost == pytest.approx(1000 * 0.2 + 440 * 0.1, abs=0.005)
    assert due.demand_cost == pytest.approx(10 * 5.0 + 20 * 20.0, abs=0.005)


def test_time_of_use_demand_counts_only_its_own_hours_and_only_work_days() -> None:
    hours = np.zeros((12, 24), dtype=np.bool_)
    hours[:, 12:18] = True
    peak = YearHours(hours, np.zeros((12, 24), dtype=np.bool_))
    rates = schedule(demand=(DemandPeriod("peak", peak, (Tier(20.0),)),))
    saturday, monday_morning, monday_noon = at(2019, 6, 1, 13), at(2019, 6, 3, 9), at(2019, 6, 3, 12)
    intervals = [BilledInterval(s, 900.0, kw * KW * 900.0) for s, kw in
                 [(saturday, 90.0), (monday_morning, 80.0), (monday_noon, 50.0)]]  # fmt: skip
    assert bill(intervals, tariff=rates).demand_cost == pytest.approx(50 * 20.0)
    assert bill(intervals, tariff=schedule(demand=rates.demand, holidays=frozenset({date(2019, 6, 3)}))).total == (
        pytest.approx(bill(intervals, tariff=schedule()).total)
    )


@pytest.mark.parametrize(
    ("day", "hours"), [((2019, 3, 10), 23), ((2019, 11, 3), 25), ((2019, 7, 1), 24)], ids=["spring", "autumn", "summer"]
)
def test_a_day_of_daylight_saving_has_as_many_hours_as_it_has(day: tuple[int, int, int], hours: int) -> None:
    begin = at(*day, zone=NEW_YORK)
    end = (datetime(*day, tzinfo=NEW_YORK) + timedelta(days=1)).timestamp()
    night = np.zeros((12, 24), dtype=np.bool_)
    night[:, :6] = True
    energy = (
        EnergyPeriod("night", YearHours(night, night), (Tier(0.05),)),
        EnergyPeriod("day", YearHours(~night, ~night), (Tier(0.1),)),
    )
    due = bill(flat(1000 * KW, start=begin, end=end), tariff=schedule(zone=NEW_YORK, energy=energy))
    night_hours = hours - 18
    assert due.energy_cost == pytest.approx(1000 * (night_hours * 0.05 + 18 * 0.1), abs=0.005)


def test_months_end_at_midnight_of_the_zone_also_in_a_leap_year() -> None:
    rates = schedule(zone=NEW_YORK, demand=(DemandPeriod("maximum", YearHours.always(), (Tier(1.0),)),))
    last = BilledInterval(at(2020, 2, 29, 23, zone=NEW_YORK), 3600.0, 7 * KW * 3600)
    first = BilledInterval(at(2020, 3, 1, zone=NEW_YORK), 3600.0, 9 * KW * 3600)
    demand = [(line.period_start_wall_s, line.amount) for line in bill([last, first], tariff=rates).lines
              if line.kind == "demand"]  # fmt: skip
    assert demand == [(at(2020, 2, 1, zone=NEW_YORK), 7.0), (at(2020, 3, 1, zone=NEW_YORK), 9.0)]


def test_an_interval_across_a_price_change_pays_both_prices() -> None:
    morning = np.zeros((12, 24), dtype=np.bool_)
    morning[:, :12] = True
    energy = (
        EnergyPeriod("am", YearHours(morning, morning), (Tier(0.1),)),
        EnergyPeriod("pm", YearHours(~morning, ~morning), (Tier(0.3),)),
    )
    hour = BilledInterval(at(2019, 5, 6, 11) + 1800, 3600.0, 10 * KW * 3600)
    assert bill([hour], tariff=schedule(energy=energy)).energy_cost == pytest.approx(5 * 0.1 + 5 * 0.3)


def test_coincident_windows_charge_the_mean_import_in_them() -> None:
    windows = tuple((at(2019, month, 15, 16), at(2019, month, 15, 16) + 900) for month in (6, 7))
    rates = schedule(coincident=(CoincidentWindows("4CP", 4.0, windows),))
    lines = bill(flat(20 * KW, start=at(2019, 6, 1), end=at(2019, 7, 31)), tariff=rates).lines
    assert [(line.amount, line.money) for line in lines if line.kind == "coincident"] == [(20.0, 80.0)] * 2


def test_fixed_charges_count_days_and_a_minimum_bill_is_reached() -> None:
    charges = (FixedCharge("meter", 2.0, per_day=True), FixedCharge("service", 10.0, per_day=False))
    rates = schedule(fixed_charges=charges, minimum_per_period=500.0)
    due = bill(flat(0.0, start=at(2019, 4, 1), end=at(2019, 5, 1)), tariff=rates)
    assert due.cost_of("fixed") == pytest.approx(30 * 2 + 10)
    assert due.total == pytest.approx(500.0)


def test_export_is_paid_at_its_own_price() -> None:
    energy = (EnergyPeriod("all", YearHours.always(), (Tier(0.2),), export_price_per_kwh=0.05),)
    out = BilledInterval(at(2019, 4, 1), 3600.0, joules=0.0, exported_joules=10 * KW * 3600)
    assert bill([out], tariff=schedule(energy=energy)).total == pytest.approx(-0.5)


def test_a_line_says_when_its_peak_was() -> None:
    rates = schedule(demand=(DemandPeriod("maximum", YearHours.always(), (Tier(1.0),)),))
    intervals = flat(10 * KW, start=at(2019, 4, 1), end=at(2019, 4, 3))
    intervals[57] = BilledInterval(intervals[57].start_wall_s, 900.0, 11 * KW * 900)
    line = next(line for line in bill(intervals, tariff=rates).lines if line.kind == "demand")
    assert (line.amount, line.peak_wall_s) == (11.0, intervals[57].start_wall_s)


def test_nothing_costs_nothing() -> None:
    assert bill([], tariff=schedule()).total == 0.0


def test_a_planner_sees_one_charge_for_each_component_and_month_its_slots_touch() -> None:
    rates = schedule(demand=cold_and_warm(Lookback(fraction=0.35)))
    starts = np.arange(at(2019, 4, 30, 12), at(2019, 5, 1, 12), 3600.0)
    charges = demand_charges(rates, starts)
    assert [(c.name, c.price_per_kw, int(c.covers.sum())) for c in charges] == [("cold", 10.5, 12), ("warm", 11.5, 12)]
