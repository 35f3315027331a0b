"""What every battery behind a PCS must do, whichever wire it hangs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from slurm_power.adapters.ess_sunspec import SunSpecEss, SunSpecEssConfig
from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.ports.ess import Ess
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_ess import FakeEss
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig
from slurm_power.testing.simulated_site.in_process import InProcessSite
from slurm_power.testing.simulated_site.pcs import PcsConfig
from slurm_power.testing.simulated_site.profile import LoadConfig

BATTERY = BatteryConfig(
    rated_joules=7_200_000.0,
    max_charge_watts=3000.0,
    max_discharge_watts=4000.0,
    charge_efficiency_fraction=0.9,
    discharge_efficiency_fraction=0.8,
    health_fraction=0.95,
)
CAPACITY_JOULES = 7_200_000.0 * 0.95


@dataclass
class Rig:
    ess: Ess
    clock: FakeClock
    do: Callable[..., object]


def fake_rig() -> Iterator[Rig]:
    clock = FakeClock()
    ess = FakeEss(clock=clock, battery=BATTERY)

    def do(order: str, **values: object) -> None:
        match order, list(values.values()):
            case "set-local", [bool(local)]:
                ess.pcs.local = local
            case "raise-alarm", [str(alarm)]:
                ess.pcs.alarms.add(alarm)
            case "jump-soc", [float(fraction)]:
                ess.pcs.battery.jump_to(fraction)
            case "silence", [_, bool(silent)]:
                ess.answers = not silent

    yield Rig(ess, clock, do)


def sunspec_rig(mode: str) -> Callable[[], Iterator[Rig]]:
    def rig() -> Iterator[Rig]:
        clock = FakeClock()
        config = SimulatedSiteConfig(
            load=LoadConfig(day_s=120.0, mean_watts=9000.0, peak_watts=14_000.0),
            battery=BATTERY,
            pcs=PcsConfig(max_watts=5000.0, ramp_percent_per_s=1000, setpoint_modes=mode),
        )
        with InProcessSite(config, clock=clock) as site:
            settings = SunSpecEssConfig(host=site.host, port=site.port, timeout_s=0.5, revert_s=10.0)
            ess = SunSpecEss(settings, clock=clock)
            yield Rig(ess, clock, site.do)
            ess.close()

    return rig


RIGS = {"fake": fake_rig, "sunspec-watts": sunspec_rig("both"), "sunspec-percent": sunspec_rig("percent")}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from RIGS[request.param]()


def test_it_tells_its_ratings_and_state(rig: Rig) -> None:
    reading = rig.ess.read()
    assert reading.stored_fraction == pytest.approx(0.5, abs=1e-3)
    assert reading.health_fraction == pytest.approx(0.95)
    assert reading.available_joules == pytest.approx(reading.stored_fraction * CAPACITY_JOULES, rel=0.01)
    assert reading.capacity_joules == pytest.approx(CAPACITY_JOULES, rel=1e-3)
    assert (reading.max_charge_watts, reading.max_discharge_watts) == (3000.0, 4000.0)
    assert (reading.charge_watts, reading.discharge_watts) == (0.0, 0.0)
    assert reading.remote_allowed
    assert reading.alarms == ()


def test_a_reading_carries_the_time_it_was_taken(rig: Rig) -> None:
    rig.clock.advance(5.0)
    assert rig.ess.read().taken_at_s == rig.clock.now_s()


def test_a_discharge_command_discharges(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(discharge_watts=2500.0), revert_s=60.0)
    rig.clock.advance(2.0)
    reading = rig.ess.read()
    assert reading.discharge_watts == pytest.approx(2500.0, abs=1.0)
    assert reading.charge_watts == 0.0


def test_a_charge_command_charges(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(charge_watts=1500.0), revert_s=60.0)
    rig.clock.advance(2.0)
    reading = rig.ess.read()
    assert reading.charge_watts == pytest.approx(1500.0, abs=1.0)
    assert reading.discharge_watts == 0.0


def test_a_new_command_replaces_the_old_one(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(charge_watts=1500.0), revert_s=60.0)
    rig.clock.advance(2.0)
    rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=60.0)
    rig.clock.advance(2.0)
    assert rig.ess.read().discharge_watts == pytest.approx(1000.0, abs=1.0)


def test_stand_by_is_a_command_too(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=60.0)
    rig.clock.advance(2.0)
    rig.ess.command(EssSetpoint(), revert_s=60.0)
    rig.clock.advance(2.0)
    assert rig.ess.read().discharge_watts == 0.0


def test_it_drops_to_zero_by_itself_when_no_command_follows(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
    rig.clock.advance(9.0)
    assert rig.ess.read().discharge_watts == pytest.approx(1000.0, abs=1.0)
    rig.clock.advance(3.0)
    assert rig.ess.read().discharge_watts == 0.0


def test_every_command_starts_the_dead_man_timer_anew(rig: Rig) -> None:
    for _ in range(4):
        rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
        rig.clock.advance(8.0)
    assert rig.ess.read().discharge_watts == pytest.approx(1000.0, abs=1.0)


def test_it_takes_commands_again_after_it_dropped_to_zero(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
    rig.clock.advance(20.0)
    rig.ess.command(EssSetpoint(charge_watts=500.0), revert_s=10.0)
    rig.clock.advance(2.0)
    assert rig.ess.read().charge_watts == pytest.approx(500.0, abs=1.0)


@pytest.mark.parametrize("setpoint", [EssSetpoint(charge_watts=3100.0), EssSetpoint(discharge_watts=4100.0)])
def test_it_refuses_more_than_its_ratings(rig: Rig, setpoint: EssSetpoint) -> None:
    with pytest.raises(DeviceRefused):
        rig.ess.command(setpoint, revert_s=10.0)


def test_it_takes_exactly_its_ratings(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(discharge_watts=rig.ess.read().max_discharge_watts), revert_s=10.0)
    rig.clock.advance(2.0)
    assert rig.ess.read().discharge_watts == pytest.approx(4000.0, abs=1.0)


def test_a_panel_in_local_mode_is_told_and_refused(rig: Rig) -> None:
    rig.do("set-local", local=True)
    assert not rig.ess.read().remote_allowed
    with pytest.raises(DeviceRefused, match="local"):
        rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)


def test_stored_energy_follows_the_one_way_efficiencies(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(charge_watts=2000.0), revert_s=1000.0)
    rig.clock.advance(500.0)
    charged = rig.ess.read().stored_fraction
    assert charged == pytest.approx(0.5 + 2000.0 * 0.9 * 500.0 / CAPACITY_JOULES, abs=2e-3)
    rig.ess.command(EssSetpoint(discharge_watts=2000.0), revert_s=1000.0)
    rig.clock.advance(500.0)
    assert rig.ess.read().stored_fraction == pytest.approx(charged - 2000.0 / 0.8 * 500.0 / CAPACITY_JOULES, abs=2e-3)


def test_an_empty_battery_gives_nothing_and_a_full_one_takes_nothing(rig: Rig) -> None:
    rig.do("jump-soc", stored_fraction=BATTERY.min_stored_fraction)
    rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=60.0)
    rig.clock.advance(2.0)
    assert rig.ess.read().discharge_watts == 0.0
    rig.do("jump-soc", stored_fraction=BATTERY.max_stored_fraction)
    rig.ess.command(EssSetpoint(charge_watts=1000.0), revert_s=60.0)
    rig.clock.advance(2.0)
    assert rig.ess.read().charge_watts == 0.0


def test_alarms_have_names(rig: Rig) -> None:
    rig.do("raise-alarm", alarm="OVER_TEMP")
    assert "OVER_TEMP" in rig.ess.read().alarms


def test_a_silent_device_is_unavailable_and_comes_back(rig: Rig) -> None:
    rig.ess.read()
    rig.do("silence", unit=1, silent=True)
    with pytest.raises(Unavailable):
        rig.ess.read()
    with pytest.raises(Unavailable):
        rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
    rig.do("silence", unit=1, silent=False)
    rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
    rig.clock.advance(2.0)
    assert rig.ess.read().discharge_watts == pytest.approx(1000.0, abs=1.0)


def test_it_reverts_also_while_nobody_can_reach_it(rig: Rig) -> None:
    rig.ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=10.0)
    rig.do("silence", unit=1, silent=True)
    rig.clock.advance(30.0)
    rig.do("silence", unit=1, silent=False)
    assert rig.ess.read().discharge_watts == 0.0
