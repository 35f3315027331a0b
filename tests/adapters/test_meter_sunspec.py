"""What SunSpec asks of a meter's client beyond the contract of every meter (tests/contracts/test_meter.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from slurm_power.adapters.meter_sunspec import SunSpecMeter, SunSpecMeterConfig
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig
from slurm_power.testing.simulated_site.in_process import InProcessSite
from slurm_power.testing.simulated_site.pcs import PcsConfig
from slurm_power.testing.simulated_site.profile import LoadConfig


@pytest.fixture
def site() -> Iterator[InProcessSite]:
    config = SimulatedSiteConfig(
        load=LoadConfig(day_s=1e9, mean_watts=9000.0, peak_watts=14_000.0),
        battery=BatteryConfig(rated_joules=1e6, max_charge_watts=3000.0, max_discharge_watts=3000.0),
        pcs=PcsConfig(max_watts=3000.0),
    )
    with InProcessSite(config, clock=FakeClock()) as running:
        yield running


def meter_on(site: InProcessSite, *, unit_id: int = 2, import_is_positive: bool = True) -> SunSpecMeter:
    config = SunSpecMeterConfig(
        host=site.host, port=site.port, unit_id=unit_id, timeout_s=1.0, import_is_positive=import_is_positive
    )
    return SunSpecMeter(config, clock=FakeClock())


def test_a_scale_factor_may_move_between_two_polls(site: InProcessSite) -> None:
    with closing(meter_on(site)) as meter:
        before = meter.read().import_watts
        site.do("set-scale", unit=2, model=203, point="W_SF", exponent=2)
        assert meter.read().import_watts == pytest.approx(before, abs=50.0)


def test_a_wrong_sign_in_the_config_shows_as_export(site: InProcessSite) -> None:
    with closing(meter_on(site, import_is_positive=False)) as meter:
        reading = meter.read()
    assert reading.import_watts == 0.0
    assert reading.export_watts > 0


@pytest.mark.parametrize("point", ["W", "W_SF"])
def test_power_that_is_not_implemented_is_unavailable_not_zero(site: InProcessSite, point: str) -> None:
    site.do("unimplement", unit=2, model=203, point=point)
    with closing(meter_on(site)) as meter, pytest.raises(Unavailable, match="does not implement W"):
        meter.read()


def test_the_building_meter_is_read_the_same_way(site: InProcessSite) -> None:
    with closing(meter_on(site, unit_id=3)) as meter:
        assert meter.read().import_watts == pytest.approx(site.do("truth")["inflexible_watts"], abs=1.0)


def test_a_pcs_is_not_taken_for_a_meter(site: InProcessSite) -> None:
    with closing(meter_on(site, unit_id=1)) as meter, pytest.raises(Unavailable, match="no SunSpec meter model"):
        meter.read()


@pytest.mark.parametrize(("key", "value"), [("host", ""), ("port", 70_000), ("unit_id", 0), ("timeout_s", 0.0)])
def test_a_config_that_cannot_work_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        SunSpecMeterConfig(**{"host": "meter", "import_is_positive": True, key: value})  # type: ignore[arg-type]
