"""Marks become stretches: over restarts of the agent, clocks that are set, and ends that nobody told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.monitoring.energy import Moment, Used
from slurm_power.monitoring.energy_marks import Count, Holder, Mark, Stretch, stretches_of, total
from slurm_power.monitoring.energy_nodes import Beside, NodeMark, node_stretches_of, shares_of

ANN, BOB = Holder(7, 1000), Holder(8, 1001)


def mark(
    wall_s: float,
    holder: Holder | None,
    joules: float,
    *,
    life: float = 0.0,
    up_s: float | None = None,
    board: float | None = None,
    begins: bool = False,
) -> Mark:
    count = Count(life, wall_s - life if up_s is None else up_s, Used(counted_joules=joules), board)
    return Mark("n1", "GPU-a", wall_s, holder, count, begins)


def nothing_sampled(uuid: str, since_s: float, until_s: float) -> Sequence[Moment]:
    return []


def whose(stretches: list[Stretch]) -> list[tuple[int | None, float, float, float]]:
    return [
        (one.holder.job_id if one.holder else None, one.from_wall_s, one.to_wall_s, one.used.joules)
        for one in stretches
    ]


def test_what_is_used_between_two_marks_belongs_to_whom_the_first_one_names() -> None:
    marks = [mark(0, None, 0), mark(100, ANN, 7_000, begins=True), mark(600, ANN, 357_000), mark(700, None, 427_000)]
    assert whose(stretches_of(marks, samples=nothing_sampled)) == [
        (None, 0, 100, 7_000),
        (7, 100, 600, 350_000),
        (7, 600, 700, 70_000),
    ]


def test_marks_may_come_in_any_order() -> None:
    marks = [mark(700, None, 427_000), mark(0, None, 0), mark(100, ANN, 7_000)]
    assert whose(stretches_of(marks, samples=nothing_sampled)) == [(None, 0, 100, 7_000), (7, 100, 700, 420_000)]


def test_a_wall_clock_that_is_set_back_moves_no_joules() -> None:
    marks = [
        mark(1000, ANN, 0, life=1000, up_s=0),
        mark(400, None, 300_000, life=1000, up_s=600),
        mark(500, BOB, 307_000, life=1000, up_s=700),
        mark(600, None, 377_000, life=1000, up_s=800),
    ]
    stretches = stretches_of(marks, samples=nothing_sampled)
    sums = {who: sum(s.used.joules for s in stretches if s.holder == who) for who in (ANN, None, BOB)}
    assert sums == {ANN: 300_000, None: 7_000, BOB: 70_000}
    windowed = [one.within(0.0, 2000.0) for one in stretches]
    assert sum(one.used.joules for one in windowed if one) == 377_000


def test_over_a_restart_the_boards_counter_joins_two_lives() -> None:
    marks = [mark(0, ANN, 0, board=5_000), mark(90, ANN, 0, life=90, board=41_000)]
    (one,) = stretches_of(marks, samples=nothing_sampled)
    assert one.holder == ANN
    assert one.used == Used(counted_joules=36_000)


def test_over_a_restart_without_a_counter_samples_are_integrated_and_the_gap_is_said() -> None:
    def sampled(uuid: str, since_s: float, until_s: float) -> Sequence[Moment]:
        return [Moment(float(second), None, 300.0) for second in range(1, 31)]

    marks = [mark(0, ANN, 0), mark(90, ANN, 0, life=90)]
    used = total(stretches_of(marks, samples=sampled))
    assert used.integrated_joules == 29 * 300.0


def test_a_job_whose_end_nobody_told_ends_where_slurm_says() -> None:
    marks = [mark(0, ANN, 0, board=0.0), mark(600, None, 0, life=600, board=60_000)]
    stretches = stretches_of(marks, samples=nothing_sampled, ends={7: (200.0, 9000.0)})
    assert whose(stretches) == [(7, 0, 200, pytest.approx(20_000)), (None, 200, 600, pytest.approx(40_000))]


def test_else_with_the_last_sample_of_the_agent_that_would_have_told() -> None:
    def sampled(uuid: str, since_s: float, until_s: float) -> Sequence[Moment]:
        return [Moment(100.0, 30_000.0, 300.0), Moment(300.0, 90_000.0, 300.0)]

    marks = [mark(0, ANN, 0, board=0.0), mark(600, None, 0, life=600, board=111_000)]
    assert whose(stretches_of(marks, samples=sampled)) == [
        (7, 0, 100, 30_000),
        (7, 100, 300, 60_000),
        (None, 300, 600, 21_000),
    ]


def test_a_job_that_still_runs_is_followed_by_its_samples() -> None:
    def sampled(uuid: str, since_s: float, until_s: float) -> Sequence[Moment]:
        return [Moment(610.0, 61_000.0, 100.0), Moment(640.0, 64_000.0, 100.0)]

    stretches = stretches_of([mark(600, ANN, 0, board=60_000)], samples=sampled, tail_until_wall_s=650.0)
    assert whose(stretches) == [(7, 600, 610, 1_000), (7, 610, 640, 3_000)]


def test_samples_from_before_a_clock_was_set_back_are_not_counted_again() -> None:
    def sampled(uuid: str, since_s: float, until_s: float) -> Sequence[Moment]:
        return [Moment(610.0, 61_000.0, 100.0), Moment(640.0, 59_000.0, 100.0), Moment(641.0, 59_100.0, 100.0)]

    stretches = stretches_of([mark(600, ANN, 0, board=60_000)], samples=sampled, tail_until_wall_s=650.0)
    assert whose(stretches) == [(7, 600, 610, 1_000)]


def test_marks_of_an_agent_that_did_not_count_are_filled_from_samples() -> None:
    def sampled(uuid: str, since_s: float, until_s: float) -> Sequence[Moment]:
        return [Moment(second, 100.0 * second, 100.0) for second in range(1, 60)]

    marks = [Mark("n1", "GPU-a", 0.5, ANN, None, begins=True), Mark("n1", "GPU-a", 59.5, None, None)]
    stretches = stretches_of(marks, samples=sampled)
    assert {one.holder for one in stretches} == {ANN}
    assert total(stretches).counted_joules == pytest.approx(5_800)


@given(st.floats(1, 599), st.floats(0, 1e6))
def test_a_window_cuts_energy_and_loses_none(at_s: float, joules: float) -> None:
    (one,) = stretches_of([mark(0, ANN, 0), mark(600, None, joules)], samples=nothing_sampled)
    before, after = one.within(-1e9, at_s), one.within(at_s, 1e9)
    assert before is not None
    assert after is not None
    assert (before.used + after.used).joules == pytest.approx(joules)
    assert one.within(600, 700) is None


def test_a_nodes_rest_follows_the_gpus() -> None:
    marks = [
        NodeMark("n1", 0, 0, 0, 4, None, 0.0),
        NodeMark("n1", 100, 0, 100, 4, None, 50_000.0),
        NodeMark("n1", 100, 0, 100, 4, 1_000.0, 50_000.0),
        NodeMark("n1", 200, 0, 200, 4, 5_000.0, 100_000.0),
    ]
    nodes = node_stretches_of(marks)
    held = Stretch("n1", "GPU-a", 50.0, 150.0, ANN, Used())
    (share,) = shares_of([held], nodes)
    assert share == Beside(cpu_joules=pytest.approx(625.0), rest_joules=pytest.approx(12_500.0))
