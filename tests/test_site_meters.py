"""The controller as composed from a site's file: which meter it follows, and the meters below that one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_power import compose
from slurm_power.daemons.controller import Controller
from slurm_power.errors import ConfigError
from slurm_power.site_config import read_site_config
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.redfish_server import RedfishServer
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig
from slurm_power.testing.simulated_site.in_process import InProcessSite
from slurm_power.testing.simulated_site.pcs import PcsConfig
from slurm_power.testing.simulated_site.profile import LoadConfig
from slurm_power.testing.snmpd_server import SnmpdServer, apc_says, find_snmpd

EXAMPLE = Path(__file__).resolve().parents[1] / "etc" / "slurm-power.toml"
METRICS = "/redfish/v1/PowerEquipment/RackPDUs/{}/Metrics"


@pytest.fixture
def plant() -> Iterator[InProcessSite]:
    """Feeder meter and PCS."""
    config = SimulatedSiteConfig(
        load=LoadConfig(day_s=1e9, mean_watts=9000.0, peak_watts=14_000.0),
        battery=BatteryConfig(rated_joules=1e6, max_charge_watts=3000.0, max_discharge_watts=3000.0),
        pcs=PcsConfig(max_watts=3000.0),
    )
    with InProcessSite(config, clock=FakeClock()) as running:
        yield running


@pytest.fixture
def racks() -> Iterator[RedfishServer]:
    with RedfishServer() as running:
        for number, watts in ((1, 4000.0), (2, 2500.0)):
            running.resources[METRICS.format(number)] = {"PowerWatts": {"Reading": watts}}
        yield running


def rack(server: RedfishServer, number: int) -> str:
    path = METRICS.format(number)
    return f'kind = "redfish"\nurl = "{server.url}"\npath = "{path}"\nmax_watts = 20000\ntimeout_s = 20\n'


def controller(directory: Path, plant: InProcessSite, *, meter: str | None = None, parts: str = "") -> Controller:
    """The example's site with this plant's PCS and, unless `meter` says otherwise, its feeder meter."""
    text = EXAMPLE.read_text().replace("192.0.2.10", plant.host).replace("port = 502", f"port = {plant.port}")
    text = text.replace("\ntimeout_s = 2.0", "\ntimeout_s = 20.0").replace("revert_s = 30", "revert_s = 60")
    text = re.sub(r'"/var/lib/[^"]*/', f'"{directory}/', text)
    if meter is not None:
        text = re.sub(r"^\[meter\]\n(?:[^\n#\[].*\n)+", lambda _: f"[meter]\n{meter}", text, flags=re.MULTILINE)
    file = directory / "site.toml"
    file.write_text(f"{text}\n{parts}")
    file.chmod(0o644)
    return compose.controller(read_site_config(file))


def status_of(running: Controller) -> dict[str, Any]:
    running.fast_tick()
    running.parts_tick()
    try:
        return running.status()
    finally:
        running.close()


def test_the_present_sunspec_table_works_as_ever(tmp_path: Path, plant: InProcessSite) -> None:
    status = status_of(controller(tmp_path, plant))
    assert status["grid"]["import_watts"] == pytest.approx(plant.do("truth")["inflexible_watts"], abs=5.0)
    assert (status["failures"], status["parts"], status["conservation"]) == ({}, {}, None)


def test_a_site_may_follow_a_redfish_meter(tmp_path: Path, plant: InProcessSite, racks: RedfishServer) -> None:
    status = status_of(controller(tmp_path, plant, meter=rack(racks, 1)))
    assert status["grid"]["import_watts"] == 4000.0


def test_a_site_without_a_feeder_meter_follows_the_sum_of_its_parts(
    tmp_path: Path, plant: InProcessSite, racks: RedfishServer
) -> None:
    parts = f"[parts.meters.r1]\n{rack(racks, 1)}[parts.meters.r2]\n{rack(racks, 2)}"
    running = controller(tmp_path, plant, meter='kind = "parts"\n', parts=parts)
    assert not running.watches_parts, "there is nothing to hold them against"
    assert status_of(running)["grid"]["import_watts"] == 6500.0
    del racks.resources[METRICS.format(2)]
    running.fast_tick()
    assert "the sum of parts lacks r2: r2 http" in running.status()["failures"]["meter"]


def test_feeder_and_parts_are_held_against_each_other(
    tmp_path: Path, plant: InProcessSite, racks: RedfishServer
) -> None:
    if find_snmpd() is None:
        pytest.skip("snmpd is not installed")
    community = tmp_path / "community"
    community.write_text("hush\n")
    community.chmod(0o600)
    with SnmpdServer(tmp_path / "snmpd", ["rocommunity hush 127.0.0.1"]) as pdu:
        pdu.serve(apc_says(1230.0))
        parts = (
            f"[parts.meters.r1]\n{rack(racks, 1)}"
            f'[parts.meters.a1]\nkind = "snmp"\ndevice = "apc_rpdu2"\nhost = "{pdu.host}"\nport = {pdu.port}\n'
            f'max_watts = 20000\ntimeout_s = 20\ncommunity_file = "{community}"\n'
        )
        running = controller(tmp_path, plant, parts=parts)
        assert running.watches_parts
        status = status_of(running)
    assert {name: part["import_watts"] for name, part in status["parts"].items()} == {"a1": 1230.0, "r1": 4000.0}
    assert status["notes"] == ["conservation: feeder and all parts are known together for 0 s of 900 s: no verdict"]


def test_a_secret_that_is_missing_stops_the_start_in_one_line(tmp_path: Path, plant: InProcessSite) -> None:
    meter = 'kind = "snmp"\ndevice = "apc_rpdu2"\nhost = "pdu"\nmax_watts = 1\ncommunity_file = "/no/such"\n'
    with pytest.raises(ConfigError, match=r"^meter: community_file = /no/such: .*No such file"):
        controller(tmp_path, plant, meter=meter)
