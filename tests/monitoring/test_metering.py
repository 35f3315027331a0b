from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.monitoring.metering import ClosedInterval, MeteringInterval


def starting(wall_s: float = 900.0, *, length_s: float = 900.0, max_gap_s: float = 30.0) -> MeteringInterval:
    return MeteringInterval.starting(length_s=length_s, max_gap_s=max_gap_s, wall_s=wall_s)


def observed(
    interval: MeteringInterval, readings: list[tuple[float, float | None]]
) -> tuple[MeteringInterval, list[ClosedInterval]]:
    closed: list[ClosedInterval] = []
    for wall_s, watts in readings:
        interval, done = interval.observe(watts=watts, wall_s=wall_s)
        closed += done
    return interval, closed


def test_intervals_are_clocked_to_wall_time_not_to_our_start() -> None:
    interval = starting(1000.0)
    assert interval.start_wall_s == 900.0
    assert interval.end_wall_s == 1800.0


def test_a_steady_load_averages_to_itself() -> None:
    interval, closed = observed(starting(), [(900.0 + 10 * i, 5000.0) for i in range(91)])
    assert closed == [ClosedInterval(900.0, 900.0, 5000.0 * 900, 900.0)]
    assert closed[0].average_watts == pytest.approx(5000.0)
    assert interval.start_wall_s == 1800.0


def test_a_ramp_is_integrated_as_a_line() -> None:
    interval, _ = observed(starting(), [(900.0, 0.0), (920.0, 4000.0)])
    assert interval.joules == pytest.approx(40_000.0)
    assert interval.average_watts == pytest.approx(2000.0)


def test_a_reading_across_the_boundary_is_shared_between_both_intervals() -> None:
    interval, closed = observed(starting(1790.0), [(1790.0, 1000.0), (1810.0, 3000.0)])
    assert closed[0].joules == pytest.approx(10 * 1500.0)
    assert interval.joules == pytest.approx(10 * 2500.0)


def test_what_was_before_our_start_is_unknown() -> None:
    interval, _ = observed(starting(1000.0), [(1000.0, 500.0), (1020.0, 500.0)])
    assert interval.known_s == pytest.approx(20.0)
    assert interval.unknown_s(1020.0) == pytest.approx(100.0)


def test_a_long_silence_is_unknown_not_zero() -> None:
    interval, _ = observed(starting(), [(900.0, 1000.0), (910.0, 1000.0), (1010.0, 1000.0), (1020.0, 1000.0)])
    assert interval.average_watts == pytest.approx(1000.0)
    assert interval.unknown_s(1020.0) == pytest.approx(100.0)


def test_a_short_silence_is_bridged() -> None:
    interval, _ = observed(starting(), [(900.0, 1000.0), (910.0, None), (920.0, 3000.0)])
    assert interval.joules == pytest.approx(20 * 2000.0)
    assert interval.unknown_s(920.0) == 0.0


def test_an_interval_without_any_reading_has_no_average() -> None:
    _, closed = observed(starting(), [(900.0, None), (1800.0, None)])
    assert closed[0].average_watts is None
    assert closed[0].unknown_s == 900.0


def test_years_of_sleep_are_one_step() -> None:
    interval, closed = observed(starting(), [(900.0, 100.0), (900.0 + 3.15e8, 100.0)])
    assert len(closed) == 1
    assert interval.start_wall_s <= 900.0 + 3.15e8 < interval.end_wall_s


def test_a_clock_that_steps_back_integrates_nothing_twice() -> None:
    interval, _ = observed(starting(), [(900.0, 1000.0), (920.0, 1000.0), (910.0, 1000.0)])
    assert interval.joules == pytest.approx(20_000.0)


def test_the_state_survives_a_restart() -> None:
    interval, _ = observed(starting(), [(900.0, 1000.0), (910.0, 2000.0)])
    assert MeteringInterval.from_record(interval.to_record()) == interval
    assert MeteringInterval.from_record(starting().to_record()) == starting()


def test_a_record_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="metering interval"):
        MeteringInterval.from_record({"length_s": 900.0})


@given(
    st.lists(st.tuples(st.floats(0.1, 25.0), st.floats(0.0, 1e6)), min_size=2, max_size=60),
    st.floats(0.0, 1e6),
)
def test_no_joule_is_lost_at_boundaries(steps: list[tuple[float, float]], first_watts: float) -> None:
    interval, closed = observed(starting(60.0, length_s=60.0), [(60.0, first_watts)])
    wall_s, watts, joules = 60.0, first_watts, 0.0
    for step_s, next_watts in steps:
        joules += step_s * (watts + next_watts) / 2
        wall_s, watts = wall_s + step_s, next_watts
        interval, done = interval.observe(watts=watts, wall_s=wall_s)
        closed += done
    assert sum(one.joules for one in closed) + interval.joules == pytest.approx(joules, rel=1e-9, abs=1e-3)
    assert all(one.unknown_s == pytest.approx(0.0, abs=1e-6) for one in closed)
