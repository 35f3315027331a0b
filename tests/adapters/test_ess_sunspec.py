"""What SunSpec asks of a client beyond the contract of every battery (tests/contracts/test_ess.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurm_power.adapters.ess_sunspec import SunSpecEss, SunSpecEssConfig
from slurm_power.errors import ConfigError, DeviceRefused, Unavailable
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig
from slurm_power.testing.simulated_site.in_process import InProcessSite
from slurm_power.testing.simulated_site.pcs import PcsConfig
from slurm_power.testing.simulated_site.profile import LoadConfig

WSET_BLOCK = 11  # registers from 704 WSetEna to WSetRvrtTms


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def site(clock: FakeClock) -> Iterator[InProcessSite]:
    config = SimulatedSiteConfig(
        load=LoadConfig(day_s=120.0, mean_watts=9000.0, peak_watts=14_000.0),
        battery=BatteryConfig(rated_joules=7_200_000.0, max_charge_watts=3000.0, max_discharge_watts=4000.0),
        pcs=PcsConfig(max_watts=5000.0, ramp_percent_per_s=20),
    )
    with InProcessSite(config, clock=clock) as running:
        yield running


@pytest.fixture
def ess(site: InProcessSite, clock: FakeClock) -> Iterator[SunSpecEss]:
    settings = SunSpecEssConfig(host=site.host, port=site.port, timeout_s=0.5, revert_s=10.0)
    adapter = SunSpecEss(settings, clock=clock)
    yield adapter
    adapter.close()


def writes(site: InProcessSite) -> list[int]:
    """Registers of each write the PCS took so far, the heartbeat's two left out."""
    return site.ask(lambda it: [count for _, _, count in it.bus.writes if count != 2])


def test_a_running_command_changes_in_one_write(site: InProcessSite, ess: SunSpecEss) -> None:
    ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
    before = len(writes(site))
    ess.command(EssSetpoint(discharge_watts=2000.0), revert_s=10.0)
    assert writes(site)[before:] == [WSET_BLOCK]


def test_the_first_command_enables_last(site: InProcessSite, ess: SunSpecEss) -> None:
    ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
    assert writes(site) == [WSET_BLOCK - 1, 1]


def test_every_command_hands_over_its_dead_man_time_in_whole_seconds(site: InProcessSite, ess: SunSpecEss) -> None:
    ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.2)
    assert site.ask(lambda it: it.plant.pcs.pcs.revert_left_s) == 11.0


def test_the_dead_man_leaves_the_setpoint_enabled_at_zero(
    site: InProcessSite, ess: SunSpecEss, clock: FakeClock
) -> None:
    ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
    clock.advance(20.0)
    ess.read()
    pcs = site.ask(lambda it: it.plant.pcs.pcs)
    assert (pcs.enabled, pcs.set_watts, pcs.set_percent, pcs.reverts) == (True, 0.0, 0.0, 1)


def test_scale_factors_may_move_between_two_polls(site: InProcessSite, ess: SunSpecEss, clock: FakeClock) -> None:
    ess.command(EssSetpoint(discharge_watts=2000.0), revert_s=60.0)
    clock.advance(5.0)
    before = ess.read()
    for model, point, exponent in ((701, "W_SF", 2), (702, "W_SF", 1), (713, "WH_SF", 1), (713, "Pct_SF", 0)):
        site.do("set-scale", unit=1, model=model, point=point, exponent=exponent)
    after = ess.read()
    assert after.discharge_watts == pytest.approx(before.discharge_watts, abs=50.0)
    assert after.max_charge_watts == pytest.approx(before.max_charge_watts, abs=5.0)
    assert after.capacity_joules == pytest.approx(before.capacity_joules, rel=0.01)
    assert after.stored_fraction == pytest.approx(before.stored_fraction, abs=0.01)


def test_a_moved_scale_factor_holds_for_the_next_command(
    site: InProcessSite, ess: SunSpecEss, clock: FakeClock
) -> None:
    ess.read()
    site.do("set-scale", unit=1, model=704, point="WSet_SF", exponent=2)
    ess.command(EssSetpoint(discharge_watts=2000.0), revert_s=60.0)
    clock.advance(5.0)
    assert ess.read().discharge_watts == pytest.approx(2000.0)


def test_power_follows_the_ramp(ess: SunSpecEss, clock: FakeClock) -> None:
    ess.command(EssSetpoint(discharge_watts=4000.0), revert_s=60.0)
    clock.advance(1.0)
    assert ess.read().discharge_watts == pytest.approx(1000.0)
    clock.advance(1.0)
    assert ess.read().discharge_watts == pytest.approx(2000.0)


def test_health_that_is_not_implemented_is_unknown(site: InProcessSite, ess: SunSpecEss) -> None:
    site.do("unimplement", unit=1, model=713, point="SoH")
    reading = ess.read()
    assert reading.health_fraction is None
    assert reading.capacity_joules == pytest.approx(7_200_000.0)


def test_the_energy_that_is_available_is_the_devices_own_word(site: InProcessSite, ess: SunSpecEss) -> None:
    reading = ess.read()
    assert reading.available_joules == pytest.approx(reading.stored_fraction * reading.capacity_joules, rel=0.01)
    site.do("set-scale", unit=1, model=713, point="WH_SF", exponent=1)
    assert ess.read().available_joules == pytest.approx(reading.available_joules, rel=0.02)
    site.do("unimplement", unit=1, model=713, point="WHAvail")
    assert ess.read().available_joules is None


def test_alarms_that_are_not_implemented_are_not_all_alarms_at_once(site: InProcessSite, ess: SunSpecEss) -> None:
    for model, point in ((701, "Alrm"), (701, "InvSt"), (713, "Sta")):
        site.do("unimplement", unit=1, model=model, point=point)
    assert ess.read().alarms == ()


@pytest.mark.parametrize(("model", "point"), [(713, "SoC"), (701, "W"), (713, "WHRtg")])
def test_a_reading_without_what_it_needs_is_unavailable_not_zero(
    site: InProcessSite, ess: SunSpecEss, model: int, point: str
) -> None:
    site.do("unimplement", unit=1, model=model, point=point)
    with pytest.raises(Unavailable, match=point):
        ess.read()


def test_a_scale_factor_that_is_not_implemented_makes_its_values_unknown(site: InProcessSite, ess: SunSpecEss) -> None:
    site.do("unimplement", unit=1, model=701, point="W_SF")
    with pytest.raises(Unavailable, match="W"):
        ess.read()


def test_limits_fall_back_from_setting_to_rating(site: InProcessSite, ess: SunSpecEss) -> None:
    site.do("unimplement", unit=1, model=702, point="WChaRteMax")
    assert ess.read().max_charge_watts == 3000.0


def test_a_device_that_takes_neither_watts_nor_percent_is_refused(site: InProcessSite, ess: SunSpecEss) -> None:
    for point in ("WSet", "WSetPct"):
        site.do("unimplement", unit=1, model=704, point=point)
    with pytest.raises(DeviceRefused, match="WSet"):
        ess.command(EssSetpoint(charge_watts=100.0), revert_s=10.0)


def test_faults_of_converter_and_storage_join_the_alarms(site: InProcessSite, ess: SunSpecEss) -> None:
    site.do("raise-alarm", alarm="GROUND_FAULT")
    assert ess.read().alarms == ("GROUND_FAULT", "INVERTER_FAULT", "STORAGE_ERROR")
    site.do("clear-alarms")
    assert ess.read().alarms == ()


def test_the_heartbeat_moves_with_every_command(site: InProcessSite, ess: SunSpecEss) -> None:
    for _ in range(3):
        ess.command(EssSetpoint(), revert_s=10.0)
    assert site.ask(lambda it: it.plant.pcs.heartbeat) == 3


def test_a_panel_switched_to_local_between_look_and_write_is_a_refusal_too(
    site: InProcessSite, ess: SunSpecEss, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.do("unimplement", unit=1, model=715, point="LocRemCtl")  # it cannot be seen any more
    site.do("set-local", local=True)
    with pytest.raises(DeviceRefused, match="refuses the write"):
        ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("port", 0), ("unit_id", 248), ("timeout_s", 0.0), ("revert_s", 0.5), ("revert_s", 2.0)],
)
def test_a_config_that_cannot_work_is_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        SunSpecEssConfig(**{"host": "pcs", "revert_s": 30.0, key: value})  # type: ignore[arg-type]
