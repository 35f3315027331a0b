"""What every grid meter must do, whichever wire it hangs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from slurm_power.adapters.meter_sunspec import SunSpecMeter, SunSpecMeterConfig
from slurm_power.errors import Unavailable
from slurm_power.ports.meter import Meter
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_meter import FakeMeter
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig, SiteConfig
from slurm_power.testing.simulated_site.in_process import InProcessSite
from slurm_power.testing.simulated_site.pcs import PcsConfig
from slurm_power.testing.simulated_site.profile import LoadConfig


@dataclass
class Rig:
    meter: Meter
    clock: FakeClock
    show: Callable[[float], object]  # net import in watts; below zero is export
    silence: Callable[[bool], object]


def fake_rig() -> Iterator[Rig]:
    clock = FakeClock()
    meter = FakeMeter(clock=clock)

    def show(net_watts: float) -> None:
        meter.import_watts, meter.export_watts = max(0.0, net_watts), max(0.0, -net_watts)

    def silence(silent: bool) -> None:
        meter.import_watts = None if silent else 0.0

    yield Rig(meter, clock, show, silence)


def sunspec_rig(*, import_is_positive: bool) -> Callable[[], Iterator[Rig]]:
    def rig() -> Iterator[Rig]:
        clock = FakeClock()
        config = SimulatedSiteConfig(
            site=SiteConfig(meter_import_is_positive=import_is_positive),
            load=LoadConfig(day_s=1e9, mean_watts=9000.0, peak_watts=14_000.0),
            battery=BatteryConfig(rated_joules=1e6, max_charge_watts=3000.0, max_discharge_watts=3000.0),
            pcs=PcsConfig(max_watts=3000.0),
        )
        with InProcessSite(config, clock=clock) as site:
            settings = SunSpecMeterConfig(
                host=site.host, port=site.port, timeout_s=0.5, import_is_positive=import_is_positive
            )
            meter = SunSpecMeter(settings, clock=clock)
            base_watts = site.do("truth")["inflexible_watts"]
            yield Rig(
                meter,
                clock,
                lambda net_watts: site.do("add-building-load", watts=net_watts - base_watts),
                lambda silent: site.do("silence", unit=2, silent=silent),
            )
            meter.close()

    return rig


RIGS = {
    "fake": fake_rig,
    "sunspec-import-positive": sunspec_rig(import_is_positive=True),
    "sunspec-import-negative": sunspec_rig(import_is_positive=False),
}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from RIGS[request.param]()


@pytest.mark.parametrize("watts", [0.0, 1.0, 12_345.0, 40_000.0])
def test_what_is_drawn_from_the_grid_is_import(rig: Rig, watts: float) -> None:
    rig.show(watts)
    reading = rig.meter.read()
    assert reading.import_watts == pytest.approx(watts, abs=5.0)
    assert reading.export_watts == 0.0


def test_what_is_fed_into_the_grid_is_export(rig: Rig) -> None:
    rig.show(-2500.0)
    reading = rig.meter.read()
    assert reading.export_watts == pytest.approx(2500.0, abs=5.0)
    assert reading.import_watts == 0.0


def test_a_reading_carries_the_time_it_was_taken(rig: Rig) -> None:
    rig.clock.advance(5.0)
    assert rig.meter.read().taken_at_s == rig.clock.now_s()


def test_a_silent_meter_is_unavailable_not_zero(rig: Rig) -> None:
    rig.meter.read()
    rig.silence(True)
    with pytest.raises(Unavailable):
        rig.meter.read()


def test_it_is_read_again_once_it_answers(rig: Rig) -> None:
    rig.silence(True)
    with pytest.raises(Unavailable):
        rig.meter.read()
    rig.silence(False)
    rig.show(3000.0)
    assert rig.meter.read().import_watts == pytest.approx(3000.0, abs=5.0)


def test_closing_twice_is_harmless(rig: Rig) -> None:
    rig.meter.close()
    rig.meter.close()
