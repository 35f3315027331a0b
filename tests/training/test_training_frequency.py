"""Clocks: never a longer step, never more energy, and as much saved as can be on cases small enough to try all."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import ConfigError
from training.planning.clock_profiles import ClockProfile, OperatingPoint
from training.planning.frequency import (
    FrequencyPlan,
    FrequencyTask,
    choice_length_s,
    clock_changes,
    clocks_of_rank,
    deadline_s,
    judged,
)
from training.planning.frequency_by_pass import plan_by_pass
from training.planning.frequency_by_rank import plan_by_rank
from training.planning.instructions import BACKWARD, FORWARD, Compute
from training.planning.power_model import EMULATED, emulated_profile
from training.planning.replay import StageTimes, uniform

UNEVEN = StageTimes(forward_s=(0.08, 0.10, 0.10, 0.14), backward_s=(0.16, 0.20, 0.20, 0.28))
SOME_CLOCKS = EMULATED.clocks_mhz(every=12)


def _task(times: StageTimes = UNEVEN, *, schedule: str = "1f1b", micro_batches: int = 8, **rest) -> FrequencyTask:
    ranks = len(times.forward_s) // (2 if schedule == "dualpipev" else 1)
    profile = emulated_profile(times, clocks_mhz=SOME_CLOCKS)
    return FrequencyTask(schedule=schedule, ranks=ranks, micro_batches=micro_batches, profile=profile, **rest)


def _by_hand(*, waiting_watts: float) -> FrequencyTask:
    """Two micro-batches through a light stage and one three times as heavy; half the clock takes twice as long."""

    def points(fast_s: float) -> tuple[OperatingPoint, ...]:
        return (OperatingPoint(fast_s, 100 * fast_s, 2000), OperatingPoint(2 * fast_s, 120 * fast_s, 1000))

    profile = ClockProfile(
        points={
            (0, FORWARD): points(1.0),
            (0, BACKWARD): points(1.0),
            (1, FORWARD): points(3.0),
            (1, BACKWARD): points(3.0),
        },
        waiting_watts=waiting_watts,
    )
    return FrequencyTask(schedule="1f1b", ranks=2, micro_batches=2, profile=profile)


def test_only_a_pass_with_slack_is_slowed() -> None:
    """Rank 1 works from 1 to 13 without a break. Rank 0 does F1 in 1-2, which is needed at 7, and B0 in 7-8, before B1
    in 13-14. These two may take 2 s: 20 J more each, and 1 s less of waiting at 50 W."""
    plan = plan_by_pass(_by_hand(waiting_watts=50.0))
    assert _slowed(plan) == {Compute(FORWARD, 0, 1), Compute(BACKWARD, 0, 0)}
    assert plan.saved_joules == pytest.approx(2 * (50 - 20))
    assert plan.step_s == plan.all_max_step_s == 14.0


def test_nothing_is_slowed_where_waiting_is_cheaper() -> None:
    """20 J more for 1 s less of waiting at 10 W."""
    assert _slowed(plan_by_pass(_by_hand(waiting_watts=10.0))) == set()


def _slowed(plan: FrequencyPlan) -> set[Compute]:
    return {compute for compute, clock in plan.clock_mhz.items() if clock == 1000}


def test_uneven_stages_save_much_at_the_same_step_time() -> None:
    plan = plan_by_pass(_task(micro_batches=16))
    assert plan.step_s <= plan.all_max_step_s * (1 + 1e-9)
    assert plan.saved_fraction > 0.2
    heaviest = [clock for compute, clock in plan.clock_mhz.items() if compute.stage == 3]
    assert set(heaviest) == {1980}


def test_the_lightest_stage_runs_slowest() -> None:
    plan = plan_by_pass(_task(micro_batches=16))

    def mean_mhz(stage: int) -> float:
        clocks = [clock for compute, clock in plan.clock_mhz.items() if compute.stage == stage]
        return sum(clocks) / len(clocks)

    assert mean_mhz(0) < mean_mhz(1) < mean_mhz(3)


def test_dualpipev_is_planned_too() -> None:
    times = StageTimes(forward_s=(0.1, 0.2, 0.1, 0.3), backward_s=(0.2, 0.4, 0.2, 0.6))
    plan = plan_by_pass(_task(times, schedule="dualpipev"))
    assert plan.saved_joules > 0
    assert plan.step_s <= plan.all_max_step_s * (1 + 1e-9)


def test_a_straggler_elsewhere_lets_everyone_slow_down() -> None:
    """Balanced stages: without a straggler only the ends have slack; with one, the step waits for it anyway."""
    even = uniform(4, forward_s=0.1, backward_s=0.2)
    alone, waiting = (plan_by_pass(_task(even, straggler_fraction=x)) for x in (0.0, 0.1))
    assert waiting.all_max_step_s == pytest.approx(1.1 * alone.all_max_step_s)
    assert waiting.step_s == waiting.all_max_step_s
    assert waiting.saved_fraction > 2 * alone.saved_fraction


def test_a_clock_a_rank_cannot_slow_stages_that_every_micro_batch_crosses_without_tolerance() -> None:
    """The first micro-batch meets each stage on its way to the slowest one: any slower clock shows in the step."""
    assert plan_by_rank(_task()).rank_clock_mhz == (1980,) * 4


def test_a_clock_a_rank_saves_within_a_tolerance() -> None:
    plan = plan_by_rank(_task(micro_batches=16, tolerance_fraction=0.02))
    assert plan.proven_best
    assert plan.rank_clock_mhz is not None
    assert plan.rank_clock_mhz[3] == 1980
    assert max(plan.rank_clock_mhz[:3]) < 1980
    assert plan.saved_fraction > 0.1
    assert plan.all_max_step_s < plan.step_s <= 1.02 * plan.all_max_step_s
    assert {plan.clock_mhz[c] for c in plan.clock_mhz if c.stage == 0} == {plan.rank_clock_mhz[0]}


def test_a_clock_a_pass_saves_at_least_as_much_as_a_clock_a_rank() -> None:
    task = _task(tolerance_fraction=0.02)
    assert plan_by_pass(task).joules <= plan_by_rank(task).joules


def test_a_search_that_is_cut_short_says_so_and_still_keeps_the_deadline() -> None:
    task = _task(tolerance_fraction=0.05)
    plan = plan_by_rank(task, replays=5)
    assert not plan.proven_best
    assert plan.step_s <= deadline_s(task) * (1 + 1e-9)


def test_the_order_for_a_listener_is_the_order_of_the_rank() -> None:
    task = _task()
    plan = plan_by_pass(task)
    clocks = clocks_of_rank(plan, task, 0)
    assert len(clocks) == 16
    assert clocks[0] == plan.clock_mhz[Compute(FORWARD, 0, 0)]
    assert clocks[4] == plan.clock_mhz[Compute(BACKWARD, 0, 0)]
    assert clocks[-1] == plan.clock_mhz[Compute(BACKWARD, 0, 7)]
    assert 0 < clock_changes(plan, task) <= 4 * 15
    assert clock_changes(plan_by_rank(task), task) == 0


def test_a_plan_prints_what_it_saves_and_what_it_costs() -> None:
    line = plan_by_rank(_task(micro_batches=16, tolerance_fraction=0.02)).text()
    assert line.startswith("clocks (one clock a rank): ")
    assert "saved" in line
    assert "step" in line


def test_a_stage_that_was_not_profiled_is_named() -> None:
    profile = emulated_profile(uniform(1, forward_s=1.0, backward_s=1.0))
    task = FrequencyTask(schedule="1f1b", ranks=2, micro_batches=2, profile=profile)
    for plan in (plan_by_pass, plan_by_rank):
        with pytest.raises(ConfigError, match="clock profile: stage 1, forward is missing"):
            plan(task)


def test_negative_slack_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"straggler_fraction = -0\.1: must not be negative"):
        _task(straggler_fraction=-0.1)


@st.composite
def _tiny_tasks(draw) -> FrequencyTask:
    """Any noise, as measured profiles have it: only that the highest clock is the fastest."""
    schedule, ranks = draw(st.sampled_from([("1f1b", 2), ("1f1b", 3), ("dualpipev", 2)]))
    stages = 2 * ranks if schedule == "dualpipev" else ranks
    clocks = [2000, 1500, 1000]
    points = {}
    for key in product(range(stages), (FORWARD, BACKWARD)):
        times = sorted(draw(st.lists(st.floats(0.1, 3.0), min_size=3, max_size=3)))
        energies = draw(st.lists(st.floats(1.0, 300.0), min_size=3, max_size=3))
        points[key] = tuple(map(OperatingPoint, times, energies, clocks))
    return FrequencyTask(
        schedule=schedule,
        ranks=ranks,
        micro_batches=draw(st.integers(4, 6)),
        profile=ClockProfile(points=points, waiting_watts=draw(st.floats(0.0, 80.0))),
        exchange_s=draw(st.sampled_from([0.0, 0.05])),
        tolerance_fraction=draw(st.sampled_from([0.0, 0.1])),
        straggler_fraction=draw(st.sampled_from([0.0, 0.2])),
    )


@given(_tiny_tasks())
@settings(max_examples=60, deadline=None)
def test_no_plan_is_late_and_none_needs_more_at_equal_step_time(task) -> None:
    for plan in (plan_by_pass(task), plan_by_rank(task)):
        assert plan.step_s <= deadline_s(task) * (1 + 1e-6)
        more_waiting_joules = task.ranks * task.profile.waiting_watts * (plan.step_s - plan.all_max_step_s)
        assert plan.joules <= plan.all_max_joules + more_waiting_joules + 1e-6


@given(_tiny_tasks())
@settings(max_examples=25, deadline=None)
def test_a_clock_a_rank_is_the_best_of_all_combinations(task) -> None:
    plan = plan_by_rank(task)
    passes = [c for c in task.graph.instructions if isinstance(c, Compute)]
    home = dict(zip(task.graph.instructions, task.graph.rank, strict=True))
    best = float("inf")
    for clocks in product((2000, 1500, 1000), repeat=task.ranks):
        choice = {c: task.profile.at(c, clocks[home[c]]) for c in passes}
        if choice_length_s(task, choice) <= deadline_s(task) * (1 + 1e-9):
            best = min(best, sum(task.profile.extra_joules(point) for point in choice.values()))
    chosen = sum(task.profile.extra_joules(task.profile.at(c, mhz)) for c, mhz in plan.clock_mhz.items())
    assert plan.proven_best
    assert chosen == pytest.approx(best)


def _two_stage_task(times, energies, *, waiting_watts: float) -> FrequencyTask:
    keys = list(product(range(2), (FORWARD, BACKWARD)))
    points = {
        key: (OperatingPoint(t, e, 2000), OperatingPoint(t * 1.5, e * 0.8, 1000))
        for key, t, e in zip(keys, times, energies, strict=True)
    }
    profile = ClockProfile(points=points, waiting_watts=waiting_watts)
    return FrequencyTask(schedule="1f1b", ranks=2, micro_batches=3, profile=profile, tolerance_fraction=0.1)


def _joules(times, energies, watts) -> tuple[float, float, float]:
    """Extra joules of the best of all 2^12 combinations, of the plan, and of the highest clocks."""
    task = _two_stage_task(times, energies, waiting_watts=watts)
    passes = [c for c in task.graph.instructions if isinstance(c, Compute)]
    highest = sum(task.profile.extra_joules(task.profile.fastest(c)) for c in passes)
    best = highest
    for clocks in product((2000, 1000), repeat=len(passes)):
        choice = {c: task.profile.at(c, clock) for c, clock in zip(passes, clocks, strict=True)}
        extra = sum(task.profile.extra_joules(point) for point in choice.values())
        if extra < best and choice_length_s(task, choice) <= deadline_s(task) * (1 + 1e-9):
            best = extra
    plan = plan_by_pass(task)
    chosen = sum(task.profile.extra_joules(task.profile.at(c, mhz)) for c, mhz in plan.clock_mhz.items())
    return best, chosen, highest


@given(
    st.lists(st.floats(0.2, 2.0), min_size=4, max_size=4),
    st.lists(st.floats(10.0, 100.0), min_size=4, max_size=4),
    st.floats(0.0, 30.0),
)
@settings(max_examples=10, deadline=None)
def test_a_clock_a_pass_lies_between_the_best_combination_and_the_highest_clocks(times, energies, watts) -> None:
    best, chosen, highest = _joules(times, energies, watts)
    assert best - 1e-6 <= chosen <= highest + 1e-6


def test_rounding_the_relaxed_optimum_keeps_nine_tenths_of_what_could_be_saved() -> None:
    """Over tasks drawn at random; of a single one it may keep half."""
    random = Random(1)
    could = does = 0.0
    for _ in range(10):
        times, energies = ([random.uniform(*ends) for _ in range(4)] for ends in ((0.2, 2.0), (10.0, 100.0)))
        best, chosen, highest = _joules(times, energies, random.uniform(0.0, 30.0))
        could, does = could + highest - best, does + highest - chosen
    assert does >= 0.9 * could


def test_judging_the_highest_clocks_saves_nothing() -> None:
    task = _task()
    choice = {c: task.profile.fastest(c) for c in task.graph.instructions if isinstance(c, Compute)}
    plan = judged(task, choice)
    assert plan.saved_joules == 0.0
    assert plan.step_s == plan.all_max_step_s
