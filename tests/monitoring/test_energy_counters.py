from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.monitoring.energy_counters import EnergyCounter, EnergyReading, watts_between

RANGE_JOULES = 262_143.0


def reading(at_s: float, **joules: float) -> EnergyReading:
    return EnergyReading({name: EnergyCounter(value, RANGE_JOULES) for name, value in joules.items()}, at_s)


def test_the_parts_draws_add_up() -> None:
    before, after = reading(10.0, package=100.0, dram=50.0), reading(12.0, package=500.0, dram=90.0)
    assert watts_between(before, after, most_watts=1000.0) == pytest.approx(220.0)


def test_a_counter_that_started_over_counts_on() -> None:
    before, after = reading(0.0, package=RANGE_JOULES - 100.0), reading(1.0, package=50.0)
    assert watts_between(before, after, most_watts=1000.0) == pytest.approx(150.0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(reading(0.0, package=1.0), reading(0.0, package=2.0), id="no-time"),
        pytest.param(reading(5.0, package=1.0), reading(4.0, package=2.0), id="time-backwards"),
        pytest.param(reading(0.0, package=1.0), reading(1.0, package=2.0, dram=1.0), id="another-part"),
        pytest.param(reading(0.0, package=1.0), reading(300.0, package=2.0), id="could-have-wrapped-twice"),
        pytest.param(reading(0.0), reading(1.0), id="no-part"),
    ],
)
def test_what_cannot_be_known_is_unknown_not_zero(before: EnergyReading, after: EnergyReading) -> None:
    assert watts_between(before, after, most_watts=1000.0) is None


@given(start=st.floats(0, RANGE_JOULES - 1), watts=st.floats(0, 900), elapsed_s=st.floats(0.1, 200))
def test_any_draw_is_found_again_wherever_the_counter_stood(start: float, watts: float, elapsed_s: float) -> None:
    end = (start + watts * elapsed_s) % RANGE_JOULES
    found = watts_between(reading(0.0, p=start), reading(elapsed_s, p=end), most_watts=1000.0)
    assert found == pytest.approx(watts, abs=1e-3)
