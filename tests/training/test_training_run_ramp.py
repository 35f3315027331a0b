"""The ramp limit, by the power trace of a simulated job."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from training.run.ramp import Ramp, RampLimit

Trace = list[tuple[float, float, float]]
"""Begin, end and watts of stretches of equal power, without gaps."""


def simulated(limit: RampLimit, steps_s: list[float], lost_s: dict[int, float] | None = None) -> Trace:
    """A job makes steps of these lengths and pauses as told; before step k it loses `lost_s[k]` to something else."""
    ramp, now_s, trace = Ramp(limit), 0.0, []
    for number, step_s in enumerate(steps_s):
        idle_s = (lost_s or {}).get(number, 0.0)
        pause_s = max(idle_s, ramp.pause_s(now_s))
        trace.append((now_s, now_s + pause_s, limit.idle_watts))
        trace.append((now_s + pause_s, now_s + pause_s + step_s, limit.full_watts))
        ramp.stepped(began_s=now_s + pause_s, ended_s=now_s + pause_s + step_s)
        now_s += pause_s + step_s
    return trace


def joules(trace: Trace, from_s: float, to_s: float) -> float:
    return sum(watts * max(0.0, min(end, to_s) - max(begin, from_s)) for begin, end, watts in trace)


limits = st.builds(
    lambda rate, idle, swing: RampLimit(rate, idle, idle + swing),
    st.floats(1.0, 1000.0),
    st.floats(0.0, 1000.0),
    st.floats(10.0, 20000.0),
)
step_lists = st.lists(st.floats(0.05, 3.0), min_size=2, max_size=60)


@given(limit=limits, steps_s=step_lists, lost=st.dictionaries(st.integers(1, 20), st.floats(0.0, 50.0), max_size=3))
def test_no_window_holds_more_energy_than_the_ramp_allows_and_one_step(
    limit: RampLimit, steps_s: list[float], lost: dict[int, float]
):
    trace = simulated(limit, steps_s, lost)
    edges = sorted({edge for begin, end, _ in trace for edge in (begin, end)})
    one_step_joules = limit.swing_watts * max(steps_s)
    for from_s in edges[:: max(1, len(edges) // 12)]:
        for to_s in edges[:: max(1, len(edges) // 12)]:
            if to_s > from_s:
                allowed = limit.idle_watts * (to_s - from_s) + limit.above_idle_joules(from_s, to_s)
                assert joules(trace, from_s, to_s) <= allowed + one_step_joules + 1e-6 * allowed + 1e-6


@given(limit=limits, steps_s=step_lists)
def test_the_ramp_is_not_slower_than_it_must_be(limit: RampLimit, steps_s: list[float]):
    trace = simulated(limit, steps_s)
    end_s = trace[-1][1]
    allowed = limit.idle_watts * end_s + limit.above_idle_joules(0.0, end_s)
    assert joules(trace, 0.0, end_s) >= allowed * (1 - 1e-9) - 1e-6 or end_s > limit.length_s


@given(limit=limits, steps_s=step_lists)
def test_mean_power_of_each_cycle_is_what_is_allowed_meanwhile(limit: RampLimit, steps_s: list[float]):
    trace = simulated(limit, steps_s)
    begins = [begin for begin, _, watts in trace if watts == limit.full_watts]
    for begin_s, next_s in pairwise(begins):
        mean_watts = joules(trace, begin_s, next_s) / (next_s - begin_s)
        allowed_watts = limit.idle_watts + limit.above_idle_joules(begin_s, next_s) / (next_s - begin_s)
        assert mean_watts <= allowed_watts * (1 + 1e-6) + 1e-6


def test_after_the_ramp_steps_follow_each_other():
    limit = RampLimit(100.0, 200.0, 1200.0)  # 10 s long
    trace = simulated(limit, [0.5] * 100)
    pauses = [(begin, end - begin) for begin, end, watts in trace if watts == limit.idle_watts]
    assert all(length > 1e-6 for begin, length in pauses[1:] if begin < 9.0)
    assert all(length < 1e-6 for begin, length in pauses if begin > 11.0)


def test_worked_numbers():
    limit = RampLimit(100.0, 0.0, 1000.0)
    ramp = Ramp(limit)
    assert ramp.pause_s(50.0) == 0.0
    ramp.stepped(began_s=50.0, ended_s=51.0)
    # 1000 J are allowed after sqrt(2 x 1000 J / 100 W/s) = 4.47 s
    assert ramp.pause_s(51.0) == pytest.approx(math.sqrt(20.0) - 1.0)
    assert ramp.pause_s(60.0) == 0.0


def test_the_ramp_begins_with_the_first_step_and_not_before():
    limit = RampLimit(100.0, 0.0, 1000.0)
    early, late = Ramp(limit), Ramp(limit)
    early.stepped(began_s=0.0, ended_s=1.0)
    late.stepped(began_s=1000.0, ended_s=1001.0)
    assert early.pause_s(1.0) == pytest.approx(late.pause_s(1001.0))


@given(limit=limits, held_at=st.floats(0.1, 5.0), held_s=st.floats(0.0, 100.0), step_s=st.floats(0.05, 1.0))
def test_a_held_ramp_stays_at_its_power_and_goes_on_from_there(
    limit: RampLimit, held_at: float, held_s: float, step_s: float
):
    assume(held_at < limit.length_s)
    ramp = Ramp(limit)
    ramp.stepped(began_s=0.0, ended_s=step_s)
    now_s = max(held_at, step_s + ramp.pause_s(step_s))
    ramp.hold(True, now_s=now_s)
    level = limit.above_idle_watts(ramp.ramp_s(now_s))
    ramp.stepped(began_s=now_s, ended_s=now_s + step_s)
    assert ramp.pause_s(now_s + step_s) == pytest.approx(limit.swing_watts * step_s / level - step_s, abs=1e-6)
    before_s = ramp.ramp_s(now_s + step_s)
    ramp.hold(False, now_s=now_s + step_s + held_s)
    assert ramp.ramp_s(now_s + step_s + held_s) == pytest.approx(before_s, abs=1e-6)


def test_held_where_it_began_it_waits_for_its_release():
    ramp = Ramp(RampLimit(100.0, 0.0, 1000.0))
    ramp.hold(True, now_s=0.0)
    ramp.stepped(began_s=1.0, ended_s=2.0)
    assert ramp.pause_s(100.0) == math.inf
    ramp.hold(False, now_s=100.0)
    assert ramp.pause_s(100.0) == pytest.approx(math.sqrt(20.0))
    assert not ramp.ended(100.0)
    assert ramp.ended(111.0)
