"""What is billed already, hour by hour: several demand charges, ratchets, and where import is free."""

from __future__ import annotations

import math
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from slurm_power.ess.demand_bounds import billed_watts_at, demand_bounds, slot_limits
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.rate_schedule import RateSchedule
from slurm_power.ess.rates import Rates
from slurm_power.ess.urdb import parse_urdb
from tests.urdb_rates import FLAT_RATE, dear_hours

ZONE = ZoneInfo("Europe/Berlin")
NOON_HOURS = range(12, 18)


def rate(**changes: object) -> RateSchedule:
    """10 per kW at any hour, 20 more from noon to 18:00 on work days."""
    return parse_urdb(FLAT_RATE | dear_hours(NOON_HOURS) | changes, zone=ZONE)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp()


def after(rates: Rates, *peaks: tuple[str, float]) -> DemandLedger:
    ledger = DemandLedger()
    for text, watts in peaks:
        ledger = ledger.with_interval(rates, start_wall_s=at(text), watts=watts)
    return ledger


def test_each_charge_knows_its_hours_its_price_and_what_it_has_billed() -> None:
    rates = rate()
    ledger = after(rates, ("2024-05-06T09:00", 9000.0), ("2024-05-06T13:00", 5000.0))
    starts = [at(f"2024-05-07T{hour:02}:00") for hour in range(24)]
    flat, noon = sorted(demand_bounds(rates, ledger, starts), key=lambda bound: bound.price_per_kw)
    assert (flat.price_per_kw, flat.billed_watts, int(flat.covers.sum())) == (10.0, 9000.0, 24)
    assert (noon.price_per_kw, noon.billed_watts, np.flatnonzero(noon.covers).tolist()) == (
        20.0,
        5000.0,
        list(NOON_HOURS),
    )


def test_import_is_free_up_to_the_lowest_charge_of_the_hour() -> None:
    rates = rate()
    ledger = after(rates, ("2024-05-06T09:00", 9000.0), ("2024-05-06T13:00", 5000.0))
    assert billed_watts_at(rates, ledger, at("2024-05-07T10:00")) == 9000.0
    assert billed_watts_at(rates, ledger, at("2024-05-07T13:00")) == 5000.0
    assert billed_watts_at(rates, ledger, at("2024-06-03T13:00")) == 0.0


def test_an_hour_without_a_demand_charge_has_no_limit() -> None:
    rates = rate(flatdemandstructure=[[{"rate": 0.0}]])
    assert billed_watts_at(rates, DemandLedger(), at("2024-05-07T10:00")) == math.inf


def test_a_floor_counts_as_billed() -> None:
    bounds = demand_bounds(rate(), DemandLedger(), [at("2024-05-07T13:00")], floor_watts=4000.0)
    assert {bound.billed_watts for bound in bounds} == {4000.0}


def test_the_limit_of_a_slot_is_the_lowest_level_of_its_charges() -> None:
    bounds = demand_bounds(rate(), DemandLedger(), [at("2024-05-07T10:00"), at("2024-05-07T13:00")])
    levels = np.array([{10.0: 8000.0, 20.0: 6000.0}[bound.price_per_kw] for bound in bounds])
    assert slot_limits(bounds, levels, 2).tolist() == [8000.0, 6000.0]


def test_a_month_roll_over_in_the_horizon_has_bounds_of_both_months() -> None:
    rates = rate()
    ledger = after(rates, ("2024-05-06T09:00", 9000.0))
    starts = [at("2024-05-31T22:00") + 3600 * hour for hour in range(6)]
    flat = [bound for bound in demand_bounds(rates, ledger, starts) if bound.price_per_kw == 10.0]
    assert [(bound.billed_watts, int(bound.covers.sum())) for bound in flat] == [(9000.0, 2), (0.0, 4)]


def test_a_day_of_25_hours_has_one_more_slot_in_its_charges() -> None:
    starts = [at("2024-10-27T00:00") + 3600 * hour for hour in range(25)]
    (flat,) = demand_bounds(rate(), DemandLedger(), starts)
    assert int(flat.covers.sum()) == 25


def test_with_a_ratchet_the_earlier_months_are_billed_already_and_a_new_maximum_costs_later_too() -> None:
    rates = rate(lookbackpercent=0.8, lookbackrange=11)
    ledger = after(rates, ("2024-01-15T10:00", 10_000.0), ("2024-05-06T09:00", 6000.0))
    bounds = {bound.name: bound for bound in demand_bounds(rates, ledger, [at("2024-05-07T10:00")])}
    own = next(bound for name, bound in bounds.items() if not name.startswith("ratchet"))
    later = next(bound for name, bound in bounds.items() if name.startswith("ratchet"))
    assert own.billed_watts == pytest.approx(8000.0)
    assert (later.billed_watts, later.price_per_kw) == (10_000.0, pytest.approx(8.0))
