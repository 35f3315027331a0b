"""The open period's bill, with worked numbers: what is owed, what it will come to, and what nobody measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.ess.bill_so_far import OpenBill, bill_so_far
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.energy_account import EnergyAccount
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.monitoring.metering import ClosedInterval

HOUR_S = 3600.0
START_S = 1_700_006_400.0  # a whole hour
TARIFF = Tariff(
    currency="EUR",
    energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.10), EnergyPrice(start_s=43_200.0, price_per_kwh=0.20)),
    demand_price_per_kw=5.0,
    metering_interval_s=HOUR_S,
    billing_period_s=2 * 86_400.0,
    anchor_wall_s=START_S,
)


def interval(hour: int, kw: float, *, known: float = 1.0) -> ClosedInterval:
    known_s = known * HOUR_S
    return ClosedInterval(START_S + hour * HOUR_S, HOUR_S, kw * 1000 * known_s, known_s)


def bill(intervals: list[ClosedInterval], *, hours: float, plan: DispatchPlan | None = None) -> OpenBill:
    account, ledger = EnergyAccount(), DemandLedger()
    for one in intervals:
        account = account.with_interval(TARIFF, one)
        ledger = ledger.with_interval(TARIFF, start_wall_s=one.start_wall_s, watts=one.average_watts or 0.0)
    return bill_so_far(TARIFF, ledger=ledger, account=account, plan=plan, wall_s=START_S + hours * HOUR_S)


def plan(first_hour: int, kw: list[float]) -> DispatchPlan:
    slots = tuple(
        PlanSlot(START_S + (first_hour + i) * HOUR_S, HOUR_S, 1000 * one, 0, 0, 0, 0, 0, 0, 0, 0.1)
        for i, one in enumerate(kw)
    )
    return DispatchPlan(START_S + first_hour * HOUR_S, 0.0, slots, 0.0)


def test_energy_at_its_hours_price_and_the_highest_interval() -> None:
    due = bill([interval(h, 100.0) for h in range(18)], hours=18)
    assert [(line.name, line.amount) for line in due.lines] == [
        ("energy, from 00:00", pytest.approx(1200.0)),
        ("energy, from 12:00", pytest.approx(600.0)),
        ("maximum demand", pytest.approx(100.0)),
    ]
    assert due.total == pytest.approx(1200 * 0.10 + 600 * 0.20 + 100 * 5.0)
    assert due.notes == ()


def test_without_a_plan_the_period_goes_on_at_its_mean() -> None:
    due = bill([interval(h, 100.0) for h in range(12)], hours=12)
    # 48 h at 100 kW: 24 h at each price
    assert due.projected_total == pytest.approx(2400 * 0.10 + 2400 * 0.20 + 100 * 5.0)


def test_the_plan_goes_before_the_mean_and_its_peak_counts() -> None:
    due = bill([interval(h, 100.0) for h in range(12)], hours=12, plan=plan(12, [300.0, 50.0]))
    # 300 + 50 kWh at 0.20, then 34 h at the mean of 100 kW: 10 h at 0.20, 12 at 0.10, 12 at 0.20
    assert due.projected_total == pytest.approx(120 + 70 + 200 + 120 + 240 + 300 * 5.0)


def test_gaps_are_told_never_filled_in_what_is_owed() -> None:
    due = bill([interval(h, 100.0) for h in range(6)] + [interval(9, 100.0, known=0.5)], hours=10)
    assert due.total == pytest.approx(650 * 0.10 + 100 * 5.0)
    assert due.notes[0].startswith("3.5 h of this period (35 %) were not measured")


def test_before_anything_is_measured_nothing_is_projected() -> None:
    due = bill([], hours=5, plan=plan(5, [100.0]))
    assert (due.total, due.projected_total) == (0.0, None)
    assert "5.0 h" in due.notes[0]


def test_a_new_period_begins_at_nothing() -> None:
    due = bill([interval(h, 100.0) for h in range(48)], hours=48.5)
    assert due.total == 0.0
    assert due.start_wall_s == START_S + 2 * 86_400


def test_the_account_survives_a_restart() -> None:
    account = EnergyAccount()
    for hour in range(30):
        account = account.with_interval(TARIFF, interval(hour, 80.0, known=0.9))
    assert EnergyAccount.from_records(account.to_records()) == account
    with pytest.raises(ValueError, match="not an account"):
        EnergyAccount.from_records([{"period": "x", "rate": "0 a", "amount": 1.0}])


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0.01, 1)), min_size=1, max_size=100))
def test_no_joule_is_lost_between_prices_and_periods(hours: list[tuple[float, float]]) -> None:
    intervals = [interval(h, kw, known=known) for h, (kw, known) in enumerate(hours)]
    account = EnergyAccount()
    for one in intervals:
        account = account.with_interval(TARIFF, one)
    assert sum(account.joules.values()) == pytest.approx(sum(one.joules for one in intervals))
    assert sum(account.measured_s.values()) == pytest.approx(sum(one.known_s for one in intervals))
