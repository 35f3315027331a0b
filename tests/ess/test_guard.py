from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.ess.battery import (
    BatteryLimits,
    chargeable_joules,
    dischargeable_joules,
    equivalent_full_cycles,
    usable_charge_watts,
    usable_discharge_watts,
)
from slurm_power.ess.guard import Fallback, Following, Guarded, GuardState, Holding, SiteLimits, guard_setpoint
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.readings import EssReading, GridReading

LIMITS = SiteLimits(grid_limit_watts=12_000.0, it_max_watts=10_000.0, pue=1.2, max_reading_age_s=15.0, hold_s=60.0)
BATTERY = BatteryLimits(capacity_joules=3.6e7, max_charge_watts=4000.0, max_discharge_watts=5000.0)
GRID = GridReading(import_watts=6000.0, export_watts=0.0, taken_at_s=100.0)
ESS = EssReading(0.5, None, 3.6e7, 4500.0, 4500.0, 0.0, 0.0, True, (), 100.0)


def guarded(
    wanted: EssSetpoint,
    *,
    state: GuardState | None = None,
    grid: GridReading | None = GRID,
    ess: EssReading | None = ESS,
    target_watts: float = 9000.0,
    now_s: float = 101.0,
) -> Guarded:
    return guard_setpoint(
        wanted,
        state=state or Following(),
        grid=grid,
        ess=ess,
        target_watts=target_watts,
        limits=LIMITS,
        battery=BATTERY,
        now_s=now_s,
    )


def test_a_setpoint_inside_all_limits_passes_unchanged() -> None:
    wanted = EssSetpoint(discharge_watts=2000.0)
    assert guarded(wanted) == Guarded(wanted, (), Following(wanted))


def test_charging_into_a_new_peak_is_clamped_and_named() -> None:
    result = guarded(EssSetpoint(charge_watts=3500.0))
    assert result.setpoint == EssSetpoint(charge_watts=3000.0)
    assert result.clamped == ("charge 3500 W -> 3000 W: the import limit of 9000 W",)


def test_the_grid_limit_binds_before_a_higher_target() -> None:
    result = guarded(EssSetpoint(charge_watts=3900.0), target_watts=50_000.0, grid=replace(GRID, import_watts=11_000.0))
    assert result.setpoint.charge_watts == pytest.approx(1000.0)


def test_the_lower_rating_of_pcs_and_config_binds() -> None:
    result = guarded(EssSetpoint(discharge_watts=9000.0))
    assert result.setpoint.discharge_watts == 4500.0
    assert "rating" in result.clamped[0]


def test_the_battery_never_exports() -> None:
    result = guarded(EssSetpoint(discharge_watts=4000.0), grid=replace(GRID, import_watts=1000.0))
    assert result.setpoint.discharge_watts == 1000.0
    assert "no export" in result.clamped[0]


@pytest.mark.parametrize(
    ("stored_fraction", "wanted"),
    [(0.1, EssSetpoint(discharge_watts=1000.0)), (0.95, EssSetpoint(charge_watts=1000.0))],
    ids=["empty", "full"],
)
def test_an_empty_battery_gives_nothing_and_a_full_one_takes_nothing(
    stored_fraction: float, wanted: EssSetpoint
) -> None:
    assert guarded(wanted, ess=replace(ESS, stored_fraction=stored_fraction)).setpoint == EssSetpoint()


def test_local_mode_means_stand_by() -> None:
    result = guarded(EssSetpoint(discharge_watts=1000.0), ess=replace(ESS, remote_allowed=False))
    assert result.setpoint == EssSetpoint()
    assert "local mode" in result.clamped[0]


def test_old_readings_hold_the_discharge_then_fall_back_then_follow_again() -> None:
    state: GuardState = Following(EssSetpoint(discharge_watts=2000.0))
    wanted = EssSetpoint(discharge_watts=3000.0)
    first = guarded(wanted, state=state, now_s=120.0)
    assert first.setpoint.discharge_watts == 2000.0
    assert first.state == Holding(EssSetpoint(discharge_watts=2000.0), since_s=120.0)
    assert first.clamped == ("hold: meter reading 20 s old and PCS reading 20 s old",)
    still = guarded(wanted, state=first.state, now_s=180.0)
    assert still.setpoint.discharge_watts == 2000.0
    late = guarded(wanted, state=still.state, now_s=181.0)
    assert late.setpoint == EssSetpoint()
    assert late.state == Fallback(since_s=181.0)
    assert guarded(wanted, state=late.state, now_s=500.0).state == Fallback(since_s=181.0)
    back = guarded(wanted, state=late.state, now_s=101.0)
    assert back.setpoint == wanted


def test_a_charge_stops_at_once_when_nobody_sees_the_meter() -> None:
    result = guarded(EssSetpoint(charge_watts=1000.0), state=Following(EssSetpoint(charge_watts=1000.0)), grid=None)
    assert result.setpoint == EssSetpoint()
    assert result.clamped == ("hold: meter unknown",)


@given(
    charge=st.floats(0.0, 1e5),
    discharging=st.booleans(),
    import_watts=st.floats(0.0, 3e4),
    stored_fraction=st.floats(0.0, 1.0),
    now=st.floats(0.0, 4000.0),
    target_watts=st.floats(0.0, 3e4),
)
def test_whatever_is_wanted_the_limits_hold(
    charge: float, discharging: bool, import_watts: float, stored_fraction: float, now: float, target_watts: float
) -> None:
    wanted = EssSetpoint(discharge_watts=charge) if discharging else EssSetpoint(charge_watts=charge)
    grid = replace(GRID, import_watts=import_watts)
    ess = replace(ESS, stored_fraction=stored_fraction, charge_watts=min(now, import_watts))
    load_watts = import_watts - ess.charge_watts
    result = guarded(wanted, grid=grid, ess=ess, target_watts=target_watts)
    if result.setpoint.charge_watts > 0:
        assert load_watts + result.setpoint.charge_watts <= min(12_000.0, target_watts) + 1e-6
    assert result.setpoint.charge_watts <= 4000.0
    assert result.setpoint.discharge_watts <= min(4500.0, load_watts) + 1e-6
    assert bool(result.clamped) == (result.setpoint != wanted)


def test_efficiency_stands_between_store_and_site() -> None:
    battery = replace(BATTERY, charge_efficiency=0.8, discharge_efficiency=0.5)
    assert dischargeable_joules(battery, stored_joules=0.3 * 3.6e7) == pytest.approx(0.2 * 3.6e7 * 0.5)
    assert chargeable_joules(battery, stored_joules=0.75 * 3.6e7) == pytest.approx(0.2 * 3.6e7 / 0.8)
    assert usable_discharge_watts(battery, stored_joules=0.3 * 3.6e7, duration_s=3600.0) == pytest.approx(1000.0)
    assert usable_charge_watts(battery, stored_joules=0.75 * 3.6e7, duration_s=3600.0) == pytest.approx(2500.0)
    assert equivalent_full_cycles(battery, discharged_joules=3.6e7) == pytest.approx(2.0)


@pytest.mark.parametrize("key", ["capacity_joules", "min_stored_fraction", "charge_efficiency", "reserve_fraction"])
def test_a_bad_battery_is_refused_by_key(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        replace(BATTERY, **{key: -1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["grid_limit_watts", "it_max_watts", "pue", "hold_s"])
def test_bad_site_limits_are_refused_by_key(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        replace(LIMITS, **{key: 0.0})  # type: ignore[arg-type]
