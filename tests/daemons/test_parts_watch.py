"""The meters below the feeder beside the controller: who is silent, and whether they add up."""

from __future__ import annotations

import pytest

from slurm_power.adapters.meter_sum import MeterGroup
from slurm_power.daemons.parts_watch import PartsWatch
from slurm_power.monitoring.conservation import ConservationRules
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_meter import FakeMeter


class Site:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.parts = {name: FakeMeter(clock=self.clock, import_watts=4000.0) for name in ("pdu-a1", "pdu-a2")}
        self.group = MeterGroup(self.parts)
        rules = ConservationRules(window_s=60.0)
        self.watch = PartsWatch(self.group, clock=self.clock, rules=rules, max_gap_s=15.0)

    def watch_for(self, seconds: int, *, feeder_watts: float | None) -> None:
        for _ in range(0, seconds, 5):
            self.clock.advance(5.0)
            self.watch.step(feeder_watts)


@pytest.fixture
def site() -> Site:
    return Site()


def test_parts_that_add_up_are_a_note_not_a_failure(site: Site) -> None:
    site.watch_for(65, feeder_watts=8000.0)
    view = site.watch.view()
    assert view.failures == {}
    assert view.notes == (
        "conservation: parts sum to 100.0 % of the feeder over 60 s (8.00 kW of 8.00 kW; drift +0.0 %)",
    )


def test_parts_that_do_not_add_up_are_a_failure_with_the_numbers(site: Site) -> None:
    site.watch_for(65, feeder_watts=10_000.0)
    view = site.watch.view()
    assert "parts sum to 80.0 % of the feeder" in view.failures["conservation"]
    assert "no part measures 2.00 kW" in view.failures["conservation"]
    assert view.notes == ()


def test_a_silent_part_is_named_and_its_silence_is_no_missing_load(site: Site) -> None:
    site.watch_for(65, feeder_watts=8000.0)
    site.parts["pdu-a2"].import_watts = None
    site.watch_for(10, feeder_watts=8000.0)
    view = site.watch.view()
    assert view.failures == {"part pdu-a2": "fake meter: does not answer"}
    assert list(view.parts) == ["pdu-a1"]
    assert view.conservation is not None
    assert view.conservation.ratio == pytest.approx(1.0)
    site.watch_for(60, feeder_watts=8000.0)
    assert site.watch.view().conservation.good is None  # type: ignore[union-attr]


def test_without_the_feeder_there_is_no_verdict(site: Site) -> None:
    site.watch_for(65, feeder_watts=None)
    assert site.watch.view().failures == {}
    assert site.watch.view().notes[0].endswith("no verdict")
