"""The scheduler against a cache that keeps tokens: whatever happens, every sequence reads only its own past."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_wrappers.serving.errors import BadRequest, QueueFull
from job_wrappers.serving.requests.output import FinishReason
from job_wrappers.serving.requests.request import Priority
from job_wrappers.serving.scheduling.preemption import PreemptionRule, Way
from job_wrappers.serving.scheduling.scheduler import Limits
from tests.serving.paged_memory import FakeEngine, Ticks, expected, request_of, scheduler_of

SIZE = 4


def engine_of(**settings: Any) -> FakeEngine:
    return FakeEngine(scheduler_of(block_tokens=SIZE, **settings), block_tokens=SIZE)


def assert_as_alone(engine: FakeEngine) -> None:
    for sequence in engine.ended:
        wanted = expected(sequence.request, sequence.choice, sequence.generated_tokens)
        assert list(sequence.generated) == wanted


def test_one_request_runs_to_its_length_and_leaves_nothing_held() -> None:
    engine = engine_of()
    engine.scheduler.add(request_of("a", range(1, 8), max_tokens=9))
    engine.run()
    assert [s.generated_tokens for s in engine.ended] == [9]
    assert_as_alone(engine)
    assert engine.scheduler.pool.held == 0


def test_an_iteration_never_takes_more_tokens_than_the_budget() -> None:
    engine = engine_of(max_batched_tokens=7)
    for i in range(5):
        engine.scheduler.add(request_of(str(i), [i + 1] * (10 + i)))
    engine.run()
    assert engine.most_tokens == 7
    assert_as_alone(engine)


def test_decodes_go_on_while_a_long_prompt_is_computed_in_chunks() -> None:
    engine = engine_of(max_batched_tokens=8)
    engine.scheduler.add(request_of("short", [1, 2], max_tokens=20))
    engine.step()
    engine.scheduler.add(request_of("long", range(1, 41), max_tokens=2))
    short = engine.scheduler.running[0]
    before = short.generated_tokens
    plan = engine.scheduler.plan()
    assert plan is not None
    assert [(e.sequence.request.request_id, e.new_tokens) for e in plan.scheduled] == [("short", 1), ("long", 7)]
    assert before == 1


def test_a_second_prompt_with_the_same_start_finds_it_in_the_cache() -> None:
    engine = engine_of()
    engine.scheduler.add(request_of("a", range(1, 18)))
    engine.run()
    second = engine.scheduler.add(request_of("b", [*range(1, 18), 5]))
    engine.run()
    assert second.cached_tokens == 16
    assert_as_alone(engine)


def test_another_salt_finds_nothing() -> None:
    engine = engine_of()
    engine.scheduler.add(request_of("a", range(1, 18), salt="tenant a"))
    engine.run()
    second = engine.scheduler.add(request_of("b", range(1, 18), salt="tenant b"))
    engine.run()
    assert second.cached_tokens == 0


def test_choices_share_the_prompt_and_part_where_they_write() -> None:
    engine = engine_of()
    engine.scheduler.add(request_of("a", range(1, 11), n=4, max_tokens=3))
    engine.step()
    assert engine.scheduler.pool.held == 3  # 10 tokens of one prompt in blocks of 4, not 4 x 3
    engine.run()
    assert sorted(s.choice for s in engine.ended) == [0, 1, 2, 3]
    assert_as_alone(engine)


@pytest.mark.parametrize("mode", ["swap", "recompute", "auto"])
def test_too_few_blocks_preempt_and_every_token_stays_as_it_was(mode: str) -> None:
    engine = engine_of(blocks=20, mode=mode, max_model_len=60)
    for i in range(6):
        engine.scheduler.add(request_of(str(i), [i + 1] * 9, max_tokens=30, arrived_at_s=i))
    engine.run()
    assert sum(engine.scheduler.preemptions.values()) > 0
    assert len(engine.ended) == 6
    assert_as_alone(engine)


def test_the_lowest_class_is_preempted_first_then_the_newest() -> None:
    engine = engine_of(blocks=18, mode="recompute")
    engine.scheduler.add(request_of("old batch", [1] * 9, max_tokens=30, priority=Priority.BATCH, arrived_at_s=0))
    engine.scheduler.add(request_of("old", [2] * 9, max_tokens=30, arrived_at_s=1))
    engine.scheduler.add(request_of("new", [3] * 9, max_tokens=30, arrived_at_s=2))
    engine.run()
    preempted = {s.request.request_id: s.preemptions for s in engine.ended}
    assert preempted["old batch"] >= 1
    assert preempted["old"] == 0


def test_fewer_sequences_take_effect_in_the_next_iteration_and_drop_none() -> None:
    engine = engine_of(max_num_seqs=6)
    for i in range(6):
        engine.scheduler.add(request_of(str(i), [i + 1] * 5, max_tokens=12, arrived_at_s=i))
    for _ in range(3):
        engine.step()
    engine.scheduler.limits = Limits(max_num_seqs=2, max_batched_tokens=64, max_waiting=10)
    engine.step()
    assert len(engine.scheduler.running) == 2
    engine.scheduler.limits = Limits(max_num_seqs=6, max_batched_tokens=64, max_waiting=10)
    engine.step()
    assert len(engine.scheduler.running) == 6
    engine.run()
    assert len(engine.ended) == 6
    assert_as_alone(engine)


def test_interactive_requests_go_before_batch_until_batch_has_waited_long_enough() -> None:
    now_s = Ticks()
    engine = engine_of(max_num_seqs=1, now_s=now_s)
    engine.scheduler.add(request_of("batch", [1], priority=Priority.BATCH, arrived_at_s=0.0))
    engine.scheduler.add(request_of("urgent", [2], arrived_at_s=1.0))
    first = engine.scheduler.waiting.first()
    assert first is not None
    assert first.request.request_id == "urgent"
    now_s.s = 30.0
    patient = engine.scheduler.waiting.first()
    assert patient is not None
    assert patient.request.request_id == "batch"


def test_callers_of_one_class_get_equal_shares() -> None:
    engine = engine_of(max_num_seqs=1)
    for i in range(6):
        engine.scheduler.add(request_of(f"flood {i}", [1] * 8, caller="flood", arrived_at_s=i * 0.1))
    engine.scheduler.add(request_of("single", [2] * 8, caller="single", arrived_at_s=1.0))
    engine.run()
    order = [s.request.request_id for s in engine.ended]
    assert order.index("single") == 1


def test_nothing_overtakes_a_long_prompt_that_waits_for_blocks() -> None:
    engine = engine_of(blocks=16)
    engine.scheduler.add(request_of("running", [1] * 20, max_tokens=20, arrived_at_s=0))
    engine.step()
    engine.scheduler.add(request_of("long", [2] * 50, max_tokens=2, arrived_at_s=1))
    engine.scheduler.add(request_of("short", [3] * 2, max_tokens=2, arrived_at_s=2))
    engine.run()
    assert [s.request.request_id for s in engine.ended] == ["running", "long", "short"]


def test_a_full_queue_refuses_with_a_time_to_wait() -> None:
    scheduler = scheduler_of(max_waiting=2)
    for i in range(2):
        scheduler.add(request_of(str(i), [1]))
    with pytest.raises(QueueFull, match="2 requests are waiting") as refusal:
        scheduler.add(request_of("2", [1]))
    assert refusal.value.retry_after_s == 60.0


@pytest.mark.parametrize("length", [0, 60, 100])
def test_a_prompt_that_can_never_fit_is_refused(length: int) -> None:
    with pytest.raises(BadRequest, match=f"the prompt has {length} tokens"):
        scheduler_of(max_model_len=60).add(request_of("a", [1] * length))


def test_a_cancelled_request_gives_its_blocks_back_wherever_it_is() -> None:
    engine = engine_of(blocks=20, mode="swap", max_num_seqs=3)
    for i in range(6):
        engine.scheduler.add(request_of(str(i), [i + 1] * 9, max_tokens=30, n=2, arrived_at_s=i))
    for _ in range(8):
        engine.step()
    for i in range(6):
        assert engine.scheduler.cancel(str(i))
    assert engine.scheduler.pool.held == engine.scheduler.host_pool.held == 0
    assert not engine.scheduler.has_work


def test_a_request_past_its_deadline_ends() -> None:
    now_s = Ticks()
    scheduler = scheduler_of(now_s=now_s)
    scheduler.add(request_of("late", [1], deadline_s=5.0))
    scheduler.add(request_of("patient", [1]))
    now_s.s = 5.0
    assert [(s.request.request_id, s.finish_reason) for s in scheduler.expire()] == [("late", FinishReason.DEADLINE)]


@pytest.mark.parametrize(
    ("computed_tokens", "blocks", "host_free_blocks", "way"),
    [
        pytest.param(1000, 250, 1000, Way.SWAP, id="copying-is-quicker"),
        pytest.param(10, 250, 1000, Way.RECOMPUTE, id="computing-is-quicker"),
        pytest.param(1000, 250, 249, Way.RECOMPUTE, id="no-room-in-host-memory"),
    ],
)
def test_the_cheaper_way_is_chosen(computed_tokens: int, blocks: int, host_free_blocks: int, way: Way) -> None:
    rule = PreemptionRule(block_bytes=1000, block_tokens=4, copy_bytes_per_s=1e6, prefill_tokens_per_s=1e3)
    chosen = rule.choose(computed_tokens=computed_tokens, blocks=blocks, host_free_blocks=host_free_blocks)
    assert chosen is way


ARRIVALS = st.lists(
    st.tuples(
        st.integers(1, 40), st.integers(1, 20), st.integers(1, 3), st.sampled_from(list(Priority)), st.booleans()
    ),
    min_size=1,
    max_size=12,
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("cancel"), st.integers(0, 11)),
        st.tuples(st.just("limit"), st.integers(1, 6)),
        st.tuples(st.just("budget"), st.integers(1, 40)),
        st.tuples(st.just("steps"), st.integers(1, 6)),
    ),
    max_size=25,
)


@given(
    arrivals=ARRIVALS,
    events=EVENTS,
    blocks=st.integers(16, 40),
    host_blocks=st.integers(0, 30),
    mode=st.sampled_from(["auto", "swap", "recompute"]),
    prefix_caching=st.booleans(),
)
def test_whatever_comes_and_goes_the_books_are_right_and_everything_ends(
    arrivals: list[tuple[int, int, int, Priority, bool]],
    events: list[tuple[str, int]],
    blocks: int,
    host_blocks: int,
    mode: str,
    prefix_caching: bool,
) -> None:
    engine = engine_of(blocks=blocks, host_blocks=host_blocks, mode=mode, prefix_caching=prefix_caching)
    cancelled: set[str] = set()
    todo = list(enumerate(arrivals))
    for kind, value in [*events, *[("steps", 1)] * len(todo)]:
        if todo:
            i, (length, max_tokens, n, priority, alike) = todo.pop(0)
            prompt = [1 if alike else i + 1] * length
            engine.scheduler.add(
                request_of(str(i), prompt, max_tokens=max_tokens, n=n, priority=priority, arrived_at_s=i)
            )
        if kind == "cancel" and engine.scheduler.cancel(str(value)):
            cancelled.add(str(value))
        if kind in ("limit", "budget"):
            old = engine.scheduler.limits
            seqs, budget = (value, old.max_batched_tokens) if kind == "limit" else (old.max_num_seqs, value)
            engine.scheduler.limits = Limits(max_num_seqs=seqs, max_batched_tokens=budget, max_waiting=100)
        for _ in range(value if kind == "steps" else 1):
            engine.step()
    engine.run()
    assert_as_alone(engine)
    ended = {(s.request.request_id, s.choice) for s in engine.ended}
    for i, (_, _, n, _, _) in enumerate(arrivals):
        if str(i) not in cancelled:
            assert {(str(i), choice) for choice in range(n)} <= ended
    assert engine.scheduler.pool.held == 0
    assert engine.scheduler.host_pool.held == 0
