from __future__ import annotations

import threading
from contextlib import closing

import pytest

from slurm_power.adapters.meter_sum import MeterGroup, SumMeter
from slurm_power.errors import Unavailable
from slurm_power.monitoring.readings import GridReading
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_meter import FakeMeter


class Rendezvous:
    """Answers only when `together` of its kind are asked at once."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self._barrier = barrier

    def read(self) -> GridReading:
        self._barrier.wait(timeout=10.0)
        return GridReading(1.0, 0.0, 0.0)

    def close(self) -> None:
        pass


def test_a_missing_part_is_named_and_makes_the_sum_unavailable() -> None:
    clock = FakeClock()
    parts = {name: FakeMeter(clock=clock, import_watts=100.0) for name in ("a1", "a2", "a3")}
    with closing(SumMeter(MeterGroup(parts))) as meter:
        assert meter.read().import_watts == 300.0
        parts["a2"].import_watts = None
        with pytest.raises(Unavailable, match=r"^the sum of parts lacks a2: fake meter: does not answer$"):
            meter.read()
        parts["a1"].import_watts = None
        with pytest.raises(Unavailable, match=r"lacks a1: .*\(also missing: a2\)$"):
            meter.read()
        parts["a1"].import_watts = parts["a2"].import_watts = 50.0
        assert meter.read().import_watts == 200.0


def test_the_sum_is_as_old_as_its_oldest_part() -> None:
    slow, fast = FakeClock(now_s=10.0), FakeClock(now_s=12.0)
    with closing(SumMeter(MeterGroup({"slow": FakeMeter(clock=slow), "fast": FakeMeter(clock=fast)}))) as meter:
        assert meter.read().taken_at_s == 10.0


def test_all_parts_are_asked_at_once() -> None:
    barrier = threading.Barrier(20)
    with closing(SumMeter(MeterGroup({f"pdu-{index}": Rendezvous(barrier) for index in range(20)}))) as meter:
        assert meter.read().import_watts == 20.0
