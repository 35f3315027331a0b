"""Orders of a step and their replay."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import ConfigError, TrainingError
from training.planning.bubble_formula import (
    dualpipe_readme_bubble_s,
    dualpipev_fraction,
    dualpipev_idle_forwards,
    one_f_one_b_fraction,
)
from training.planning.instructions import BACKWARD, FORWARD, Compute, Exchange, computes
from training.planning.precedence import precedence, schedule_precedence
from training.planning.replay import Interval, StageTimes, replay, replay_schedule, uniform
from training.planning.schedule import streams

NINE = [(p, k * p) for p in (2, 4, 8) for k in (2, 4, 8)]


def _letters(stream) -> str:
    return " ".join(f"{c.direction[0].upper()}{c.micro_batch}" for c in computes(stream))


def test_one_f_one_b_fills_the_pipeline_then_alternates() -> None:
    first, last = streams("1f1b", 2, 3)
    assert _letters(first) == "F0 F1 B0 F2 B1 B2"
    assert _letters(last) == "F0 B0 F1 B1 F2 B2"


def test_one_f_one_b_with_fewer_micro_batches_than_ranks_runs_all_forwards_first() -> None:
    assert _letters(streams("1f1b", 4, 2)[0]) == "F0 F1 B0 B1"


def test_a_single_rank_exchanges_nothing() -> None:
    (only,) = streams("1f1b", 1, 2)
    assert all(isinstance(instruction, Compute) for instruction in only)


def test_neighbours_exchange_a_gradient_for_an_activation() -> None:
    _, last = streams("1f1b", 2, 2)
    assert Exchange(sends=(Compute(BACKWARD, 1, 0),), receives=(Compute(FORWARD, 0, 1),)) in last


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipev"])
def test_every_rank_computes_every_micro_batch_of_its_stages_once_each_way(schedule) -> None:
    for rank, stream in enumerate(streams(schedule, 4, 9)):
        held = {rank} if schedule == "1f1b" else {rank, 7 - rank}
        wanted = {Compute(d, s, m) for d in (FORWARD, BACKWARD) for s in held for m in range(9)}
        done = computes(stream)
        assert len(done) == len(wanted)
        assert set(done) == wanted


def test_dualpipev_refuses_too_few_micro_batches() -> None:
    with pytest.raises(ConfigError, match="micro_batches = 3: must be at least 4"):
        streams("dualpipev", 2, 3)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ConfigError, match="schedule = gpipe: must be one of 1f1b, dualpipev"):
        streams("gpipe", 2, 4)


def test_a_two_rank_step_by_hand() -> None:
    """F = 1, B = 2: rank 0 waits from 2 to 4 for the first gradient, and from 6 to 7 for the second."""
    result = replay_schedule("1f1b", 2, 2, uniform(2, forward_s=1.0, backward_s=2.0))
    spans = [(i.compute.direction, i.start_s, i.end_s) for i in result.intervals[0]]
    assert spans == [(FORWARD, 0, 1), (FORWARD, 1, 2), (BACKWARD, 4, 6), (BACKWARD, 7, 9)]
    assert result.makespan_s == 9
    assert result.busy_s == (6, 6)
    assert result.bubble_fraction == pytest.approx(1 / 3)


@pytest.mark.parametrize(("p", "m"), [*NINE, (4, 2), (4, 4), (2, 1)])
def test_one_f_one_b_replayed_equals_its_formula(p, m) -> None:
    result = replay_schedule("1f1b", p, m, uniform(p, forward_s=0.3, backward_s=0.7))
    assert result.bubble_fraction == pytest.approx(one_f_one_b_fraction(p, m), abs=1e-9)


@pytest.mark.parametrize(("p", "m"), NINE)
def test_dualpipev_waits_less_than_one_f_one_b_with_the_same_work(p, m) -> None:
    halves = uniform(2 * p, forward_s=0.5, backward_s=1.0)
    result = replay_schedule("dualpipev", p, m, halves)
    assert result.bubble_fraction < one_f_one_b_fraction(p, m)
    assert result.bubble_fraction == pytest.approx(dualpipev_fraction(p, m), abs=1e-9)


@pytest.mark.parametrize("p", range(2, 8))
@pytest.mark.parametrize("backward_s", [0.1, 0.6, 1.0, 1.2, 1.6, 2.0, 3.0])
def test_dualpipevs_closed_form_equals_its_replay(p, backward_s) -> None:
    result = replay_schedule("dualpipev", p, 3 * p, uniform(2 * p, forward_s=1.0, backward_s=backward_s))
    wanted = dualpipev_idle_forwards(p, backward_per_forward=backward_s)
    assert result.idle_s == pytest.approx([wanted] * p)


def test_the_readmes_bubble_without_overlap_and_deferred_weight_gradients_bounds_ours() -> None:
    bound = dualpipe_readme_bubble_s(4, overlapped_s=1.5, backward_s=1.0, weight_gradient_s=0.0)
    ours = dualpipev_idle_forwards(4) * 0.5
    assert ours <= bound <= ours + 0.5


def test_the_slowest_stage_sets_the_pace() -> None:
    times = StageTimes(forward_s=(1.0, 3.0), backward_s=(2.0, 6.0))
    result = replay_schedule("1f1b", 2, 10, times)
    assert result.makespan_s == 1 + 10 * 9 + 2  # in, all work of the slow stage, out
    assert result.idle_s == pytest.approx((63.0, 3.0))


def test_an_exchange_takes_its_time_on_every_border() -> None:
    quick = replay_schedule("1f1b", 2, 1, uniform(2, forward_s=1.0, backward_s=1.0))
    slow = replay_schedule("1f1b", 2, 1, uniform(2, forward_s=1.0, backward_s=1.0), exchange_s=0.25)
    assert slow.makespan_s == quick.makespan_s + 0.5


def test_stage_times_must_fit_the_schedule() -> None:
    with pytest.raises(ConfigError, match="must be one for each of 4"):
        replay_schedule("dualpipev", 2, 4, uniform(2, forward_s=1.0, backward_s=1.0))
    with pytest.raises(ConfigError, match="must be as many of each"):
        StageTimes(forward_s=(1.0,), backward_s=(1.0, 2.0))


def test_streams_that_wait_for_each_other_are_found() -> None:
    a, b = Compute(FORWARD, 0, 0), Compute(BACKWARD, 1, 0)
    one = (Exchange(receives=(b,)), a, Exchange(sends=(a,)))
    other = (Exchange(receives=(a,)), b, Exchange(sends=(b,)))
    with pytest.raises(TrainingError, match="wait for each other for ever"):
        precedence([one, other])


def test_a_result_that_nobody_sends_is_found() -> None:
    with pytest.raises(TrainingError, match="named by 1 exchanges"):
        precedence([(Exchange(receives=(Compute(FORWARD, 0, 0),)),)])


@st.composite
def _cases(draw):
    schedule = draw(st.sampled_from(["1f1b", "dualpipev"]))
    p = draw(st.integers(2, 4))
    m = draw(st.integers(2 * p, 3 * p))
    count = 2 * p if schedule == "dualpipev" else p
    seconds = st.lists(st.floats(0.01, 10.0), min_size=count, max_size=count)
    return schedule, p, m, StageTimes(forward_s=tuple(draw(seconds)), backward_s=tuple(draw(seconds)))


@given(_cases())
@settings(max_examples=60, deadline=None)
def test_no_replay_beats_its_lower_bounds(case) -> None:
    schedule, p, m, times = case
    result = replay_schedule(schedule, p, m, times)
    one_micro_batch_s = sum(times.forward_s) + sum(times.backward_s)
    assert result.makespan_s >= one_micro_batch_s * (1 - 1e-12)
    assert result.makespan_s >= max(result.busy_s) * (1 - 1e-12)
    assert 0 <= result.bubble_fraction < 1


@given(_cases())
@settings(max_examples=60, deadline=None)
def test_every_result_is_there_before_it_is_used(case) -> None:
    schedule, p, m, times = case
    result = replay_schedule(schedule, p, m, times)
    spans: dict[Compute, Interval] = {i.compute: i for rank in result.intervals for i in rank}
    last = len(times.forward_s) - 1
    for compute, span in spans.items():
        if compute.direction is FORWARD and compute.stage > 0:
            assert spans[Compute(FORWARD, compute.stage - 1, compute.micro_batch)].end_s <= span.start_s
        if compute.direction is BACKWARD:
            source = Compute(FORWARD, last, compute.micro_batch)
            if compute.stage < last:
                source = Compute(BACKWARD, compute.stage + 1, compute.micro_batch)
            assert spans[source].end_s <= span.start_s
    for rank in result.intervals:
        assert all(before.end_s <= after.start_s for before, after in pairwise(rank))


@given(_cases(), st.integers(0, 3), st.floats(1.0, 3.0))
@settings(max_examples=40, deadline=None)
def test_a_slower_stage_never_shortens_the_step(case, stage, factor) -> None:
    schedule, p, m, times = case
    stage %= len(times.forward_s)
    slower = tuple(s * (factor if n == stage else 1.0) for n, s in enumerate(times.backward_s))
    before = replay_schedule(schedule, p, m, times)
    after = replay_schedule(schedule, p, m, StageTimes(forward_s=times.forward_s, backward_s=slower))
    assert after.makespan_s >= before.makespan_s * (1 - 1e-12)


def test_replay_takes_any_duration_per_computation() -> None:
    result = replay(schedule_precedence("1f1b", 1, 2), lambda compute: 1.0 + compute.micro_batch)
    assert result.makespan_s == 6.0
