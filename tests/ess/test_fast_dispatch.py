"""The open metering interval decides what the battery does now."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.fast_dispatch import FastDecision, next_setpoint
from slurm_power.ess.plan import PlanSlot
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.metering import MeteringInterval
from slurm_power.monitoring.readings import EssReading, GridReading

BATTERY = BatteryLimits(
    capacity_joules=10 * 3.6e6, max_charge_watts=5000.0, max_discharge_watts=5000.0, reserve_fraction=0.0
)
SLOT = PlanSlot(0.0, 900.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1)
TARGET_WATTS = 8000.0


def interval(*, elapsed_s: float, average_watts: float, unknown_s: float = 0.0) -> MeteringInterval:
    known_s = elapsed_s - unknown_s
    return MeteringInterval(900.0, 30.0, 0.0, joules=average_watts * known_s, known_s=known_s)


def decided(
    *,
    load_watts: float,
    elapsed_s: float = 450.0,
    average_watts: float = TARGET_WATTS,
    unknown_s: float = 0.0,
    slot: PlanSlot | None = SLOT,
    stored_fraction: float = 0.5,
    now: EssSetpoint | None = None,
) -> FastDecision:
    now = now or EssSetpoint()
    ess = EssReading(
        stored_fraction, None, 10 * 3.6e6, 5000.0, 5000.0, now.charge_watts, now.discharge_watts, True, (), 0.0
    )
    return next_setpoint(
        slot,
        target_watts=TARGET_WATTS,
        interval=interval(elapsed_s=elapsed_s, average_watts=average_watts, unknown_s=unknown_s),
        grid=GridReading(max(0.0, load_watts + now.charge_watts - now.discharge_watts), 0.0, 0.0),
        ess=ess,
        battery=BATTERY,
        wall_s=elapsed_s,
        command_s=10.0,
    )


def test_an_interval_at_its_target_gets_exactly_the_excess() -> None:
    assert decided(load_watts=9500.0).setpoint == EssSetpoint(discharge_watts=1500.0)


def test_an_interval_that_began_low_may_end_high_without_the_battery() -> None:
    decision = decided(load_watts=9500.0, average_watts=6000.0)
    assert decision.setpoint == EssSetpoint()
    assert decision.allowed_watts == pytest.approx(10_000.0)


def test_an_interval_that_began_high_is_pulled_below_the_target() -> None:
    decision = decided(load_watts=8500.0, average_watts=9000.0)
    assert decision.setpoint.discharge_watts == pytest.approx(1500.0)


def test_the_present_discharge_is_part_of_the_load() -> None:
    decision = decided(load_watts=9500.0, now=EssSetpoint(discharge_watts=1500.0))
    assert decision.setpoint.discharge_watts == pytest.approx(1500.0)


def test_what_is_unknown_counts_as_the_present_load() -> None:
    decision = decided(load_watts=9000.0, unknown_s=90.0)
    assert decision.allowed_watts == pytest.approx(8000.0 - 90 * 1000 / 450)


def test_an_empty_battery_says_what_it_cannot_give() -> None:
    decision = decided(load_watts=9500.0, stored_fraction=0.1)
    assert decision.setpoint == EssSetpoint()
    assert decision.shortfall_watts == pytest.approx(1500.0)


def test_a_lost_interval_is_still_held_down_but_nothing_is_exported() -> None:
    decision = decided(load_watts=3000.0, elapsed_s=890.0, average_watts=12_000.0)
    assert decision.setpoint.discharge_watts == pytest.approx(3000.0)


def test_planned_charging_goes_up_to_the_target_only() -> None:
    slot = replace(SLOT, charge_watts=4000.0)
    assert decided(load_watts=5000.0, slot=slot).setpoint == EssSetpoint(charge_watts=3000.0)
    assert decided(load_watts=2000.0, slot=slot).setpoint == EssSetpoint(charge_watts=4000.0)


def test_room_left_in_the_interval_is_not_used_to_charge_above_the_target() -> None:
    slot = replace(SLOT, charge_watts=4000.0)
    assert decided(load_watts=7000.0, average_watts=2000.0, slot=slot).setpoint.charge_watts == pytest.approx(1000.0)


def test_no_plan_means_no_charging_but_the_target_is_still_defended() -> None:
    assert decided(load_watts=5000.0, slot=None).setpoint == EssSetpoint()
    assert decided(load_watts=9000.0, slot=None).setpoint == EssSetpoint(discharge_watts=1000.0)


def test_a_discharge_planned_for_the_price_is_followed_and_one_for_a_peak_that_did_not_come_is_not() -> None:
    for_price = replace(SLOT, grid_import_watts=4000.0, discharge_watts=2000.0)
    for_peak = replace(SLOT, grid_import_watts=TARGET_WATTS, discharge_watts=2000.0)
    assert decided(load_watts=6000.0, slot=for_price).setpoint == EssSetpoint(discharge_watts=2000.0)
    assert decided(load_watts=6000.0, slot=for_peak).setpoint == EssSetpoint()


@settings(deadline=None)
@given(
    load_watts=st.floats(0.0, 30_000.0),
    elapsed_s=st.floats(0.0, 899.0),
    average_watts=st.floats(0.0, 20_000.0),
    planned_watts=st.floats(0.0, 5000.0),
    stored_fraction=st.floats(0.0, 1.0),
)
def test_charging_never_lifts_the_import_above_the_target(
    load_watts: float, elapsed_s: float, average_watts: float, planned_watts: float, stored_fraction: float
) -> None:
    setpoint = decided(
        load_watts=load_watts,
        elapsed_s=elapsed_s,
        average_watts=average_watts,
        slot=replace(SLOT, charge_watts=planned_watts),
        stored_fraction=stored_fraction,
    ).setpoint
    if setpoint.charge_watts > 0:
        assert load_watts + setpoint.charge_watts <= TARGET_WATTS + 1e-6
    assert setpoint.discharge_watts <= min(5000.0, load_watts) + 1e-6


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(2000.0, 12_000.0), min_size=90, max_size=90))
def test_an_interval_ends_at_or_under_the_target_whenever_the_battery_can(loads: list[float]) -> None:
    state = MeteringInterval.starting(length_s=900.0, max_gap_s=30.0, wall_s=0.0)
    joules = 0.0
    for index, load_watts in enumerate(loads):
        wall_s = 10.0 * index
        ess = EssReading(0.9, None, 1e12, 20_000.0, 20_000.0, 0.0, 0.0, True, (), wall_s)
        decision = next_setpoint(
            None,
            target_watts=TARGET_WATTS,
            interval=replace(state, joules=joules, known_s=wall_s),
            grid=GridReading(load_watts, 0.0, wall_s),
            ess=ess,
            battery=replace(BATTERY, capacity_joules=1e12, max_discharge_watts=20_000.0),
            wall_s=wall_s,
            command_s=10.0,
        )
        joules += 10.0 * (load_watts - decision.setpoint.discharge_watts)
    assert joules / 900.0 <= TARGET_WATTS + 1e-6
