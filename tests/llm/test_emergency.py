"""Late requests: each step of the emergency order only as far as the ones before it did not help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.llm.emergency import EmergencyPlan, Queued, Relief, late, plan_emergency, retry_after_s

NOTHING = Relief()


def test_in_time_nothing_changes() -> None:
    plan = plan_emergency([Queued(0, 5.0, 1.0), Queued(1, 3.0, 1.0)], Relief(speedup=2.0))
    assert plan == EmergencyPlan((0, 1), False, (), (), 0.0)


def test_order_alone_helps_if_it_can() -> None:
    plan = plan_emergency([Queued(0, 5.0, 2.0), Queued(1, 1.0, 1.0)], Relief(speedup=2.0, elsewhere_s=0.0))
    assert plan == EmergencyPlan((1, 0), False, (), (), 0.0)


def test_the_clock_is_raised_before_anything_is_sent_away() -> None:
    plan = plan_emergency([Queued(0, 1.0, 1.0), Queued(1, 1.5, 1.0)], Relief(speedup=1.5, elsewhere_s=0.0))
    assert plan == EmergencyPlan((0, 1), True, (), (), 0.0)


def test_what_the_clock_cannot_help_goes_elsewhere_and_only_what_nobody_can_is_refused() -> None:
    queue = [Queued(number, 1.0, 0.6) for number in range(4)]
    plan = plan_emergency(queue, Relief(speedup=1.2, elsewhere_s=0.3, elsewhere_requests=1))
    assert plan.raise_clock
    assert (len(plan.order), len(plan.reroute), len(plan.reject)) == (2, 1, 1)
    assert plan.retry_after_s == 1.0


def test_no_clock_is_raised_that_is_at_its_highest() -> None:
    plan = plan_emergency([Queued(0, 1.0, 1.0), Queued(1, 1.0, 1.0)], NOTHING)
    assert (plan.raise_clock, len(plan.reject)) == (False, 1)


def test_whoever_is_late_already_is_answered_late_not_refused() -> None:
    plan = plan_emergency([Queued(0, -1.0, 0.5), Queued(1, 2.0, 0.5)], NOTHING)
    assert (plan.order, plan.reject) == ((0, 1), ())


queues = st.lists(st.tuples(st.floats(-1, 10), st.floats(0.01, 3)), max_size=12).map(
    lambda rows: [Queued(number, slack_s, prefill_s) for number, (slack_s, prefill_s) in enumerate(rows)]
)


@given(queues, st.floats(1.0, 3.0), st.none() | st.floats(0, 5), st.integers(0, 5))
def test_every_request_has_exactly_one_fate(
    queue: list[Queued], speedup: float, elsewhere_s: float | None, elsewhere_requests: int
) -> None:
    relief = Relief(speedup=speedup, elsewhere_s=elsewhere_s, elsewhere_requests=elsewhere_requests)
    plan = plan_emergency(queue, relief)
    assert sorted([*plan.order, *plan.reroute, *plan.reject]) == [one.number for one in queue]
    assert len(plan.reroute) <= elsewhere_requests
    if not late(queue):
        assert not plan.changes


@pytest.mark.parametrize(("backlog_s", "told_s"), [(0.0, 1.0), (2.3, 3.0), (1e9, 60.0)])
def test_retry_after_is_whole_and_bounded(backlog_s: float, told_s: float) -> None:
    assert retry_after_s(backlog_s) == told_s
