"""What every grid meter must do, whichever wire it hangs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from slurm_power.adapters.meter_redfish import RedfishMeter, RedfishMeterConfig
from slurm_power.adapters.meter_snmp import SnmpMeter, SnmpMeterConfig
from slurm_power.adapters.meter_sum import MeterGroup, SumMeter
from slurm_power.adapters.meter_sunspec import SunSpecMeter, SunSpecMeterConfig
from slurm_power.errors import Unavailable
from slurm_power.ports.meter import Meter
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_meter import FakeMeter
from slurm_power.testing.redfish_server import RedfishServer
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig, SiteConfig
from slurm_power.testing.simulated_site.in_process import InProcessSite
from slurm_power.testing.simulated_site.pcs import PcsConfig
from slurm_power.testing.simulated_site.profile import LoadConfig
from slurm_power.testing.snmpd_server import SnmpdServer, apc_says, find_snmpd, raritan_says


@dataclass
class Rig:
    meter: Meter
    clock: FakeClock
    show: Callable[[float], object]  # net import in watts; below zero is export
    silence: Callable[[bool], object]
    feeds_in: bool = True  # False: it hangs on loads only, and what it says can only be import


def fake_rig(_: Path) -> Iterator[Rig]:
    clock = FakeClock()
    meter = FakeMeter(clock=clock)

    def show(net_watts: float) -> None:
        meter.import_watts, meter.export_watts = max(0.0, net_watts), max(0.0, -net_watts)

    def silence(silent: bool) -> None:
        meter.import_watts = None if silent else 0.0

    yield Rig(meter, clock, show, silence)


def sunspec_rig(*, import_is_positive: bool) -> Callable[[Path], Iterator[Rig]]:
    def rig(_: Path) -> Iterator[Rig]:
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


def snmp_rig(
    device: Literal["apc_rpdu2", "raritan_px2"], version: Literal["v2c", "v3"] = "v2c"
) -> Callable[[Path], Iterator[Rig]]:
    def rig(directory: Path) -> Iterator[Rig]:
        if find_snmpd() is None:
            pytest.skip("snmpd is not installed")
        clock = FakeClock()
        secret = directory / "secret"
        secret.write_text("hush-hush\n")
        secret.chmod(0o600)
        access = ["rocommunity hush-hush 127.0.0.1", "createUser m SHA-256 hush-hush AES hush-hush", "rouser m priv"]
        with SnmpdServer(directory / "snmpd", access) as server:
            keys: dict[str, Any] = {"user": "m", "auth_key_file": secret, "priv_key_file": secret}
            if version == "v2c":
                keys = {"community_file": secret}
            config = SnmpMeterConfig(
                device=device, host=server.host, port=server.port, timeout_s=20.0, max_watts=50_000.0, **keys
            )
            with closing(SnmpMeter(config, clock=clock)) as meter:
                says = {"apc_rpdu2": apc_says, "raritan_px2": raritan_says}[device]
                server.serve(says(0.0))

                def silence(silent: bool) -> None:
                    server.stop() if silent else server.restart()

                yield Rig(meter, clock, lambda watts: server.serve(says(watts)), silence, feeds_in=False)

    return rig


def sum_rig(_: Path) -> Iterator[Rig]:
    clock = FakeClock()
    parts = [FakeMeter(clock=clock), FakeMeter(clock=clock)]

    def show(net_watts: float) -> None:
        for part, share in zip(parts, (0.75, 0.25), strict=True):
            part.import_watts, part.export_watts = max(0.0, share * net_watts), max(0.0, -share * net_watts)

    def silence(silent: bool) -> None:
        parts[1].import_watts = None if silent else 0.0

    with closing(SumMeter(MeterGroup({"a1": parts[0], "a2": parts[1]}))) as meter:
        yield Rig(meter, clock, show, silence)


def redfish_rig(_: Path) -> Iterator[Rig]:
    clock = FakeClock()
    path = "/redfish/v1/PowerEquipment/RackPDUs/1/Metrics"
    with RedfishServer() as server:
        config = RedfishMeterConfig(url=server.url, path=path, timeout_s=20.0, max_watts=50_000.0)

        def show(watts: float) -> None:
            server.resources[path] = {"PowerWatts": {"Reading": watts}}

        def silence(silent: bool) -> None:
            server.hang_ups = 1_000_000 if silent else 0

        show(0.0)
        with closing(RedfishMeter(config, clock=clock)) as meter:
            yield Rig(meter, clock, show, silence, feeds_in=False)


RIGS = {
    "fake": fake_rig,
    "sunspec-import-positive": sunspec_rig(import_is_positive=True),
    "sunspec-import-negative": sunspec_rig(import_is_positive=False),
    "sum": sum_rig,
    "redfish": redfish_rig,
    "snmp-apc": snmp_rig("apc_rpdu2"),
    "snmp-raritan": snmp_rig("raritan_px2"),
    "snmp-v3": snmp_rig("raritan_px2", "v3"),
}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    yield from RIGS[request.param](tmp_path)


@pytest.mark.parametrize("watts", [0.0, 1.0, 12_345.0, 40_000.0])
def test_what_is_drawn_from_the_grid_is_import(rig: Rig, watts: float) -> None:
    rig.show(watts)
    reading = rig.meter.read()
    assert reading.import_watts == pytest.approx(watts, abs=5.0)
    assert reading.export_watts == 0.0


def test_what_is_fed_into_the_grid_is_export(rig: Rig) -> None:
    rig.show(-2500.0)
    if not rig.feeds_in:
        with pytest.raises(Unavailable):
            rig.meter.read()
        return
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
