"""The site as one: its balance, its registers as SunSpec's own client reads them, its back door."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP
from sunspec2.modbus.modbus import ModbusClientError

from slurm_power.errors import ConfigError
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig, SiteConfig, parse_site_config
from slurm_power.testing.simulated_site.in_process import InProcessSite
from slurm_power.testing.simulated_site.pcs import PcsConfig
from slurm_power.testing.simulated_site.profile import LoadConfig

TABLES: dict[str, dict[str, Any]] = {
    "site": {"pue": 1.25},
    "load": {"day_s": 120.0, "mean_watts": 9000.0, "peak_watts": 14_000.0},
    "battery": {"rated_joules": 7_200_000.0, "max_charge_watts": 3000.0, "max_discharge_watts": 4000.0},
    "pcs": {"max_watts": 5000.0, "ramp_percent_per_s": 1000},
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def site(clock: FakeClock) -> Iterator[InProcessSite]:
    with InProcessSite(parse_site_config(TABLES), clock=clock, it_watts=lambda: 4000.0) as running:
        yield running


def scanned(site: InProcessSite, unit: int) -> Any:
    client = SunSpecModbusClientDeviceTCP(slave_id=unit, ipaddr=site.host, ipport=site.port, timeout=5.0)
    client.connect()
    client.scan(connect=False)
    return client


def discharge(pcs: Any, watts: float, *, revert_s: int = 60) -> None:
    control = pcs.models[704][0]
    control.points["WSetEna"].value = 1
    control.points["WSetMod"].value = 1
    control.points["WSet"].cvalue = watts
    control.points["WSetRvrtTms"].value = revert_s
    control.write()


@pytest.mark.parametrize(("unit", "models"), [(1, [1, 701, 702, 704, 713, 715]), (2, [1, 203]), (3, [1, 203])])
def test_the_official_client_finds_every_model_without_complaint(
    site: InProcessSite, unit: int, models: list[int]
) -> None:
    with closing(scanned(site, unit)) as device:
        assert [model.model_id for model in device.model_list] == models
        assert [model.error_info for model in device.model_list] == [""] * len(models)


def test_the_official_client_commands_the_battery_and_sees_the_timer_run(site: InProcessSite, clock: FakeClock) -> None:
    with closing(scanned(site, 1)) as pcs:
        discharge(pcs, 2000.0, revert_s=30)
        clock.advance(10.0)
        for model in (701, 704):
            pcs.models[model][0].read()
        assert pcs.models[701][0].points["W"].cvalue == 2000.0
        assert pcs.models[704][0].points["WSetRvrtRem"].value == 20


def test_what_is_not_modelled_reads_as_not_implemented(site: InProcessSite) -> None:
    with closing(scanned(site, 1)) as pcs:
        assert pcs.models[701][0].points["A"].value is None
        assert pcs.models[701][0].points["Hz"].value is None


@pytest.mark.parametrize(
    ("model", "point", "value"),
    [
        pytest.param(713, "SoC", 50, id="read-only"),
        pytest.param(702, "WMax", 100, id="not-taken-by-this-device"),
        pytest.param(704, "WSet", 9000, id="outside-ratings"),
        pytest.param(704, "WSetMod", 7, id="no-such-mode"),
    ],
)
def test_a_write_the_device_does_not_take_is_a_modbus_exception(
    site: InProcessSite, model: int, point: str, value: int
) -> None:
    with closing(scanned(site, 1)) as pcs:
        target = pcs.models[model][0].points[point]
        target.value = value
        with pytest.raises(Exception, match="Modbus exception"):
            target.write()


def test_half_a_wide_point_cannot_be_written(site: InProcessSite) -> None:
    with closing(scanned(site, 1)) as pcs:
        control = pcs.models[704][0]
        with pytest.raises(Exception, match="Modbus exception"):
            pcs.write(control.model_addr + control.points["WSet"].offset, b"\0\1")


def test_a_refused_write_changes_nothing_of_what_came_with_it(site: InProcessSite) -> None:
    with closing(scanned(site, 1)) as pcs:
        control = pcs.models[704][0]
        control.points["WSetEna"].value = 1
        control.points["WSetMod"].value = 1
        control.points["WSet"].value = 9000
        with pytest.raises(Exception, match="Modbus exception"):
            control.write()
        assert not site.ask(lambda it: it.plant.pcs.pcs.enabled)


def test_the_grid_carries_building_plus_nodes_with_cooling_minus_battery(site: InProcessSite, clock: FakeClock) -> None:
    with closing(scanned(site, 1)) as pcs:
        discharge(pcs, 2000.0)
    clock.advance(5.0)
    truth = site.do("truth")
    assert truth["cooling_watts"] == pytest.approx(1000.0)
    assert truth["battery_discharge_watts"] == pytest.approx(2000.0)
    assert truth["grid_import_watts"] == pytest.approx(truth["inflexible_watts"] + 4000.0 * 1.25 - 2000.0)


def test_the_meters_show_the_truth_and_count_its_energy(site: InProcessSite, clock: FakeClock) -> None:
    clock.advance(3600.0)
    truth = site.do("truth")
    with closing(scanned(site, 2)) as grid, closing(scanned(site, 3)) as building:
        assert grid.models[203][0].points["W"].cvalue == pytest.approx(truth["grid_import_watts"], abs=5.0)
        assert building.models[203][0].points["W"].cvalue == pytest.approx(truth["inflexible_watts"], abs=5.0)
        assert grid.models[203][0].points["TotWhImp"].cvalue == pytest.approx(truth["grid_import_watts"], rel=0.01)


def test_a_meter_takes_a_coarser_scale_before_it_would_overflow(site: InProcessSite) -> None:
    site.do("add-building-load", watts=2_000_000.0)
    with closing(scanned(site, 2)) as grid:
        shown = grid.models[203][0].points["W"].cvalue
    assert shown == pytest.approx(site.do("truth")["grid_import_watts"], abs=100.0)


def test_the_building_follows_its_profile(site: InProcessSite, clock: FakeClock) -> None:
    seen = []
    for _ in range(60):
        clock.advance(2.0)
        seen.append(site.do("truth")["inflexible_watts"])
    assert max(seen) == pytest.approx(14_000.0, rel=0.02)
    assert sum(seen) / len(seen) == pytest.approx(9000.0, rel=0.02)


def test_silence_is_for_one_unit_only(site: InProcessSite) -> None:
    site.do("silence", unit=2, silent=True)
    with closing(scanned(site, 1)) as pcs:
        assert pcs.models[701]
    silent = SunSpecModbusClientDeviceTCP(slave_id=2, ipaddr=site.host, ipport=site.port, timeout=0.3)
    with closing(silent), pytest.raises((TimeoutError, ModbusClientError)):
        silent.client.read(40_000, 2)


@pytest.mark.parametrize(
    "order",
    [
        {"order": "no-such-thing"},
        {"order": "raise-alarm", "alarm": "NO_SUCH_ALARM"},
        {"order": "set-scale", "unit": 1, "model": 701, "point": "W_SF", "exponent": 99},
    ],
)
def test_a_senseless_order_is_refused(site: InProcessSite, order: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        site.do(**order)


def test_config_keys_are_strict() -> None:
    with pytest.raises(ConfigError, match=r"\[battery\] unknown key \['capacity'\]"):
        parse_site_config({**TABLES, "battery": {**TABLES["battery"], "capacity": 1.0}})
    with pytest.raises(ConfigError, match=r"\[pcs\] missing key \['max_watts'\]"):
        parse_site_config({**TABLES, "pcs": {}})
    with pytest.raises(ConfigError, match="unknown table"):
        parse_site_config({**TABLES, "sites": {}})


def test_two_devices_cannot_share_a_unit() -> None:
    with pytest.raises(ConfigError, match="own unit"):
        SiteConfig(pcs_unit=2)


def test_a_site_without_its_own_table_has_defaults() -> None:
    config = parse_site_config({name: table for name, table in TABLES.items() if name != "site"})
    assert config == SimulatedSiteConfig(
        load=LoadConfig(**TABLES["load"]), battery=BatteryConfig(**TABLES["battery"]), pcs=PcsConfig(**TABLES["pcs"])
    )
