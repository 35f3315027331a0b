"""The fast loop: it defends the target from the live meter, and never acts on what it does not know."""

from __future__ import annotations

import pytest

from slurm_power.daemons.battery_loop import BatteryLoop, defended_watts
from slurm_power.daemons.billing_state import BillingState
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_ess import FakeEss
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.testing.fake_meter import FakeMeter
from slurm_power.testing.simulated_site.battery import BatteryConfig

START_WALL_S = 1_700_000_100.0  # a whole number of 100 s intervals
TARIFF = Tariff(
    energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.1),),
    demand_price_per_kw=20.0,
    metering_interval_s=100.0,
    billing_period_s=100_000.0,
)


class Loop:
    def __init__(self, *, manage: bool = True, journal: FakeJournal | None = None) -> None:
        self.clock = FakeClock(wall_s=START_WALL_S)
        self.meter = FakeMeter(clock=self.clock, import_watts=10_000.0)
        self.ess = FakeEss(
            clock=self.clock,
            battery=BatteryConfig(rated_joules=36e6, max_charge_watts=5000.0, max_discharge_watts=5000.0),
        )
        self.journal = journal or FakeJournal()
        self.billing = BillingState(journal=self.journal, rates=TARIFF, max_gap_s=15.0, wall_s=self.clock.wall_s())
        self.loop = BatteryLoop(
            clock=self.clock,
            meter=self.meter,
            ess=self.ess,
            billing=self.billing,
            site=SiteLimits(grid_limit_watts=50_000.0, it_max_watts=20_000.0, pue=1.2, hold_s=30.0),
            battery=BatteryLimits(capacity_joules=36e6, max_charge_watts=5000.0, max_discharge_watts=5000.0),
            revert_s=20.0,
            manage=manage,
        )

    def steps(self, count: int, *, every_s: float = 5.0) -> None:
        for _ in range(count):
            self.loop.step()
            self.clock.advance(every_s)


def plan(*, target_watts: float, charge_watts: float = 0.0) -> DispatchPlan:
    slot = PlanSlot(
        start_wall_s=START_WALL_S,
        duration_s=10_000.0,
        grid_import_watts=target_watts,
        charge_watts=charge_watts,
        discharge_watts=0.0,
        stored_joules=18e6,
        inflexible_watts=5000.0,
        it_wanted_watts=4000.0,
        it_shed_watts=0.0,
        envelope_watts=4000.0,
        price_per_kwh=0.1,
        limit_watts=target_watts,
    )
    return DispatchPlan(made_wall_s=START_WALL_S, target_watts=target_watts, slots=(slot,), cost=0.0)


def test_a_load_above_the_target_is_met_by_the_battery() -> None:
    site = Loop()
    site.loop.follow(plan(target_watts=8000.0))
    site.steps(2)
    assert site.ess.commands[-1].discharge_watts >= 2000.0


def test_nothing_is_sent_before_the_first_plan() -> None:
    site = Loop()
    site.steps(3)
    assert site.ess.commands == []


def test_an_observing_controller_sends_nothing() -> None:
    site = Loop(manage=False)
    site.loop.follow(plan(target_watts=8000.0))
    site.steps(3)
    assert site.ess.commands == []


def test_charging_stops_where_it_would_lift_the_interval_above_the_target() -> None:
    site = Loop()
    site.loop.follow(plan(target_watts=10_500.0, charge_watts=5000.0))
    site.loop.step()
    assert site.ess.commands[-1].charge_watts <= 500.0


def test_a_silent_meter_holds_the_discharge_and_then_stands_by() -> None:
    site = Loop()
    site.loop.follow(plan(target_watts=8000.0))
    site.steps(2)
    before = site.ess.commands[-1]
    site.meter.import_watts = None
    site.clock.advance(20.0)
    site.steps(1)
    assert site.ess.commands[-1] == EssSetpoint(discharge_watts=before.discharge_watts)
    assert site.loop.view().failures["meter"]
    site.steps(8)
    assert site.ess.commands[-1] == EssSetpoint()


def test_a_dead_pcs_does_not_stop_the_meters_account() -> None:
    site = Loop()
    site.loop.follow(plan(target_watts=8000.0))
    site.ess.answers = False
    site.steps(22)
    assert "pcs" in site.loop.view().failures
    assert site.loop.view().peak_watts == pytest.approx(10_000.0)


def test_a_peak_that_is_already_set_is_defended_instead_of_a_lower_target() -> None:
    site = Loop()
    site.loop.follow(plan(target_watts=100_000.0))
    site.steps(22)
    site.loop.follow(plan(target_watts=8000.0))
    site.steps(1)
    assert site.ess.commands[-1].discharge_watts == pytest.approx(0.0, abs=1.0)


def test_a_promise_is_kept_even_below_a_peak_that_is_already_paid_for() -> None:
    assert defended_watts(8000.0, free_watts=9000.0, promised=True) == 8000.0
    assert defended_watts(8000.0, free_watts=9000.0, promised=False) == 9000.0


def test_the_peak_survives_a_restart_of_the_controller() -> None:
    first = Loop()
    first.loop.follow(plan(target_watts=100_000.0))
    first.steps(22)
    again = Loop(journal=first.journal)
    assert again.billing.peak_watts(START_WALL_S + 200.0) == pytest.approx(10_000.0)


def test_a_new_billing_period_starts_without_a_peak() -> None:
    site = Loop()
    site.steps(22)
    assert site.billing.peak_watts(START_WALL_S + 100_000.0) == 0.0


def test_a_full_disk_does_not_stop_the_loop() -> None:
    site = Loop()
    site.journal.disk_full = True
    site.loop.follow(plan(target_watts=8000.0))
    site.steps(22)
    assert site.loop.view().peak_watts is not None
    assert site.ess.commands
