from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.testing.simulated_site.battery import Battery, BatteryConfig
from slurm_power.testing.simulated_site.pcs import Operation, Pcs, PcsConfig, SetpointMode

BATTERY = BatteryConfig(
    rated_joules=1e6,
    max_charge_watts=1000.0,
    max_discharge_watts=1000.0,
    charge_efficiency_fraction=0.9,
    discharge_efficiency_fraction=0.9,
    health_fraction=1.0,
)


def pcs(*, ramp: int = 10_000) -> Pcs:
    return Pcs(PcsConfig(max_watts=1000.0, ramp_percent_per_s=ramp), Battery(BATTERY))


def discharge(device: Pcs, watts: float, *, revert_after_s: int = 0) -> None:
    device.enabled, device.set_watts, device.revert_after_s = True, watts, revert_after_s
    device.restart_revert_timer()


def test_the_ramp_limits_how_fast_power_moves() -> None:
    device = pcs(ramp=10)
    discharge(device, 1000.0)
    device.advance(4.0)
    assert device.discharge_watts == pytest.approx(400.0)
    device.advance(10.0)
    assert device.discharge_watts == pytest.approx(1000.0)


def test_the_timer_runs_out_inside_a_long_gap_not_at_its_end() -> None:
    device = pcs()
    discharge(device, 900.0, revert_after_s=10)
    device.advance(100.0)
    assert device.discharged_joules == pytest.approx(900.0 * 10.0, rel=0.01)
    assert device.reverts == 1


def test_after_the_timer_the_revert_values_hold() -> None:
    device = pcs()
    device.revert_enabled, device.revert_watts = True, -200.0
    discharge(device, 900.0, revert_after_s=10)
    device.advance(11.0)
    assert device.charge_watts == pytest.approx(200.0)


def test_without_a_timer_a_setpoint_stays() -> None:
    device = pcs()
    discharge(device, 100.0)
    device.advance(600.0)
    assert device.discharge_watts == pytest.approx(100.0)


def test_a_percent_setpoint_refers_to_the_nameplate() -> None:
    device = pcs()
    device.mode, device.enabled, device.set_percent = SetpointMode.W_MAX_PCT, True, -25.0
    device.advance(1.0)
    assert device.charge_watts == pytest.approx(250.0)


def test_a_stopped_converter_gives_nothing() -> None:
    device = pcs()
    discharge(device, 500.0)
    device.operation = Operation.STOP
    device.advance(1.0)
    assert device.discharge_watts == 0.0


def test_a_ground_fault_trips_at_once_and_a_warm_cabinet_does_not() -> None:
    device = pcs(ramp=1)
    discharge(device, 10.0)
    device.advance(5.0)
    device.alarms.add("OVER_TEMP")
    device.advance(1.0)
    assert device.discharge_watts == pytest.approx(10.0)
    device.alarms.add("GROUND_FAULT")
    device.advance(0.1)
    assert device.discharge_watts == 0.0


def test_standby_losses_drain_the_cells() -> None:
    battery = Battery(BatteryConfig(rated_joules=1e6, max_charge_watts=1.0, max_discharge_watts=1.0, standby_watts=5.0))
    before_joules = battery.stored_joules
    Pcs(PcsConfig(max_watts=1.0), battery).advance(100.0)
    assert before_joules - battery.stored_joules == pytest.approx(500.0)


@given(st.lists(st.tuples(st.floats(-2000.0, 2000.0), st.floats(0.01, 300.0)), max_size=12))
def test_no_series_of_setpoints_leaves_the_window_or_makes_energy(moves: list[tuple[float, float]]) -> None:
    device = pcs()
    start_joules = device.battery.stored_joules
    for watts, duration_s in moves:
        discharge(device, watts)
        device.advance(duration_s)
        assert 0.05 - 1e-9 <= device.battery.stored_fraction <= 0.95 + 1e-9
    balance = start_joules + 0.9 * device.charged_joules - device.discharged_joules / 0.9
    assert device.battery.stored_joules == pytest.approx(balance, abs=1.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rated_joules", 0.0),
        ("charge_efficiency_fraction", 1.1),
        ("initial_stored_fraction", 0.99),
        ("standby_watts", -1.0),
    ],
)
def test_an_impossible_battery_is_refused_by_name(key: str, value: float) -> None:
    values = {"rated_joules": 1e6, "max_charge_watts": 1.0, "max_discharge_watts": 1.0, key: value}
    with pytest.raises(ConfigError, match=key):
        BatteryConfig(**values)
