from __future__ import annotations

import logging

import pytest

from slurm_power.daemons.node_agent_cpus import CpuWatch
from slurm_power.errors import Unavailable
from slurm_power.monitoring.energy_counters import EnergyCounter, EnergyReading


class Counters:
    """Two packages of 100 W each; `answers` off: as without the right to read."""

    def __init__(self) -> None:
        self.now_s, self.answers = 0.0, True

    def read(self) -> EnergyReading:
        if not self.answers:
            raise Unavailable("RAPL: only root may read it")
        counter = EnergyCounter(joules=100.0 * self.now_s, wraps_joules=262_143.0)
        return EnergyReading({"package-0": counter, "package-1": counter}, self.now_s)


def test_each_look_tells_the_mean_since_the_last_one() -> None:
    counters = Counters()
    watch = CpuWatch(counters)
    assert watch.watts() is None, "one look is no power yet"
    counters.now_s = 2.0
    assert watch.watts() == pytest.approx(200.0)


def test_a_node_without_counters_knows_nothing() -> None:
    assert CpuWatch(None).watts() is None


def test_after_a_silence_the_next_look_only_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    watch = CpuWatch(counters)
    watch.watts()
    counters.answers = False
    with caplog.at_level(logging.INFO):
        assert [watch.watts() for _ in range(3)] == [None, None, None]
    assert len(caplog.records) == 1, "said once"
    counters.answers, counters.now_s = True, 50.0
    assert watch.watts() is None
    counters.now_s = 51.0
    assert watch.watts() == pytest.approx(200.0)
