"""What energy readings say about a span of time."""

from __future__ import annotations

import pytest

from job_wrappers.training.report_energy import joules_at, joules_per_token_curve, mean_watts, watts_curve
from job_wrappers.training.report_plots import MAX_POINTS, thinned
from tests.job_wrappers.step_records import step_record


def test_a_counter_that_stands_still_between_readings_is_no_zero_power() -> None:
    trace = [(0.0, 0.0), (0.1, 0.0), (0.2, 0.0), (1.0, 100.0), (1.5, 100.0), (2.0, 200.0)]
    assert watts_curve(trace, points=10) == ([0.0, 1.0, 2.0], [100.0, 100.0, 100.0])
    assert watts_curve(trace[:1], points=10) == ([], [])


def test_energy_between_two_readings_lies_on_the_line() -> None:
    trace = [(10.0, 0.0), (20.0, 100.0)]
    assert [joules_at(trace, at) for at in (9.0, 10.0, 15.0, 20.0, 21.0)] == [None, 0.0, 50.0, 100.0, None]
    assert joules_at([], 1.0) is None


def test_a_mean_power_needs_readings_all_the_way_and_some_time() -> None:
    trace = [(10.0, 0.0), (20.0, 100.0)]
    assert mean_watts(trace, 12.0, 18.0) == 10.0
    assert mean_watts(trace, 12.0, 13.0) is None, "counters are read about once a second"
    assert mean_watts(trace, 15.0, 25.0) is None


def test_energy_of_a_token_is_told_over_groups_of_steps() -> None:
    trace = [(0.0, 0.0), (100.0, 1000.0)]  # 10 W
    steps = [step_record(step=at, tokens=100, ended_at_unix_s=float(at)) for at in range(95, 105)]
    curve = joules_per_token_curve(trace, steps, window_s=2.0)
    assert [at for at, _ in curve] == [97.0, 99.0], "beyond the last reading nothing is known"
    assert [joules for _, joules in curve] == pytest.approx([0.1, 0.1])


def test_steps_that_are_not_told_count_too() -> None:
    trace = [(0.0, 0.0), (100.0, 1000.0)]
    told = [step_record(step=at, tokens=100, ended_at_unix_s=float(at)) for at in (10, 20, 30)]
    assert joules_per_token_curve(trace, told, window_s=2.0) == [(20.0, 0.1), (30.0, 0.1)]


def test_a_long_curve_is_thinned() -> None:
    points = [(float(n), 1.0) for n in range(10 * MAX_POINTS)]
    assert len(thinned(points)) == MAX_POINTS
    assert thinned(points[:5]) == points[:5]
