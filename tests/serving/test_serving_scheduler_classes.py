"""Who goes first, who makes room, and what a request may count on once it runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_wrappers.serving.errors import QueueFull
from job_wrappers.serving.kv.sizing import waste_fraction
from job_wrappers.serving.requests.request import Priority
from job_wrappers.serving.scheduling.preemption import Way
from job_wrappers.serving.scheduling.scheduler import Limits
from job_wrappers.serving.scheduling.sequence import Sequence, Status
from job_wrappers.serving.scheduling.throughput import CompletionRate
from tests.serving.paged_memory import FakeEngine, Ticks, expected, request_of, scheduler_of

SIZE = 4
BATCH = Priority.BATCH


def engine_of(*, stop_token: int | None = None, **settings: Any) -> FakeEngine:
    return FakeEngine(scheduler_of(block_tokens=SIZE, **settings), block_tokens=SIZE, stop_token=stop_token)


def names(sequences: list[Sequence]) -> list[str]:
    return [sequence.request.request_id for sequence in sequences]


def test_an_interactive_request_takes_the_seat_of_the_newest_batch_one() -> None:
    engine = engine_of(max_num_seqs=2, mode="swap")
    for i in range(2):
        engine.scheduler.add(request_of(f"batch {i}", [i + 1] * 6, max_tokens=20, priority=BATCH, arrived_at_s=i))
    engine.step()
    engine.scheduler.add(request_of("urgent", [9] * 6, max_tokens=3, arrived_at_s=2))
    engine.step()
    assert names(engine.scheduler.running) == ["batch 0", "urgent"]
    assert names(engine.scheduler.swapped) == ["batch 1"]
    engine.run()
    assert names(engine.ended) == ["urgent", "batch 0", "batch 1"]
    for sequence in engine.ended:
        assert list(sequence.generated) == expected(sequence.request, 0, sequence.generated_tokens)


def test_an_interactive_request_takes_the_blocks_of_batch_ones_and_no_more_than_it_needs() -> None:
    engine = engine_of(blocks=16)
    for i in range(3):
        engine.scheduler.add(request_of(f"batch {i}", [i + 1] * 16, max_tokens=4, priority=BATCH, arrived_at_s=i))
    engine.step()
    assert engine.scheduler.pool.available == 4
    engine.scheduler.add(request_of("urgent", [9] * 24, max_tokens=1, arrived_at_s=3))
    engine.step()
    assert names(engine.ended) == ["urgent"]
    assert names(engine.scheduler.running) == ["batch 0", "batch 1"]


def test_nobody_is_preempted_for_a_request_that_would_not_fit_even_so() -> None:
    engine = engine_of(blocks=16, max_num_seqs=4)
    engine.scheduler.add(request_of("urgent", [1] * 30, max_tokens=20, arrived_at_s=0))
    engine.scheduler.add(request_of("batch", [2] * 8, max_tokens=8, priority=BATCH, arrived_at_s=1))
    engine.step()
    engine.scheduler.add(request_of("large", [3] * 40, max_tokens=1, arrived_at_s=2))
    for _ in range(4):
        engine.step()
    assert names(engine.scheduler.running) == ["urgent", "batch"]


def test_an_interactive_request_does_not_wait_for_swapped_batch_ones() -> None:
    engine = engine_of(blocks=18, mode="swap", max_num_seqs=2)
    engine.scheduler.add(request_of("old", [1] * 9, max_tokens=40, arrived_at_s=0))
    engine.scheduler.add(request_of("batch", [2] * 40, max_tokens=15, priority=BATCH, arrived_at_s=1))
    while not engine.scheduler.swapped:
        assert engine.step()
    engine.scheduler.add(request_of("urgent", [3] * 4, max_tokens=1, arrived_at_s=2))
    engine.step()
    assert names(engine.ended) == ["urgent"]


def test_a_batch_request_that_ran_out_of_patience_is_not_preempted_for_what_comes_after() -> None:
    now_s = Ticks()
    engine = engine_of(max_num_seqs=1, now_s=now_s)
    engine.scheduler.add(request_of("batch", [1] * 6, max_tokens=20, priority=BATCH, arrived_at_s=0))
    engine.step()
    now_s.s = 30.0
    engine.scheduler.add(request_of("urgent", [2] * 6, max_tokens=2, arrived_at_s=30))
    engine.run()
    assert names(engine.ended) == ["batch", "urgent"]
    assert engine.ended[0].preemptions == 0


def test_batch_requests_do_not_overtake_an_interactive_one_that_waits_for_blocks() -> None:
    engine = engine_of(blocks=16)
    engine.scheduler.add(request_of("running", [1] * 20, max_tokens=20, arrived_at_s=0))
    engine.step()
    engine.scheduler.add(request_of("long", [2] * 50, max_tokens=2, arrived_at_s=1))
    engine.scheduler.add(request_of("small", [3] * 2, max_tokens=2, priority=BATCH, arrived_at_s=2))
    engine.run()
    assert names(engine.ended) == ["running", "long", "small"]


def test_an_interactive_prompt_is_computed_before_the_rest_of_a_batch_prompt() -> None:
    engine = engine_of(max_batched_tokens=8)
    engine.scheduler.add(request_of("batch", [1] * 40, priority=BATCH, arrived_at_s=0))
    engine.step()
    engine.scheduler.add(request_of("urgent", [2] * 10, arrived_at_s=1))
    plan = engine.scheduler.plan()
    assert plan is not None
    assert [(e.sequence.request.request_id, e.new_tokens) for e in plan.scheduled] == [("urgent", 8)]


def test_the_choices_of_a_request_have_their_seats_before_its_prompt_is_complete() -> None:
    engine = engine_of(max_num_seqs=6)
    for i in range(3):
        engine.scheduler.add(request_of(str(i), [i + 1] * 6, n=3, arrived_at_s=i))
    engine.run()
    assert len(engine.ended) == 9
    assert sum(engine.scheduler.preemptions.values()) == 0


def test_more_choices_than_seats_take_turns() -> None:
    engine = engine_of(max_num_seqs=2, mode="swap")
    engine.scheduler.add(request_of("a", [1] * 6, n=5, max_tokens=6))
    engine.run()
    assert sorted(s.choice for s in engine.ended) == [0, 1, 2, 3, 4]
    for sequence in engine.ended:
        assert list(sequence.generated) == expected(sequence.request, sequence.choice, 6)


def test_prompts_in_chunks_are_not_let_in_beyond_the_blocks_they_will_need() -> None:
    engine = engine_of(blocks=17, max_batched_tokens=8)
    for i in range(3):
        engine.scheduler.add(request_of(str(i), [i + 1] * 40, max_tokens=2, arrived_at_s=i))
    engine.run()
    assert len(engine.ended) == 3
    assert sum(engine.scheduler.preemptions.values()) == 0


def test_swapping_is_kept_to_when_it_is_asked_for_and_there_is_room() -> None:
    engine = engine_of(blocks=20, host_blocks=200, mode="swap")
    for i in range(6):
        engine.scheduler.add(request_of(str(i), [i + 1] * 9, max_tokens=30, arrived_at_s=i))
    engine.run()
    assert engine.scheduler.preemptions[Way.SWAP] > 0
    assert engine.scheduler.preemptions[Way.RECOMPUTE] == 0


def test_what_was_just_preempted_is_not_overtaken_by_what_its_blocks_would_do_for() -> None:
    engine = engine_of(blocks=15)
    engine.scheduler.add(request_of("old", [1] * 9, max_tokens=40, arrived_at_s=0))
    engine.scheduler.add(request_of("large", [2] * 30, max_tokens=30, arrived_at_s=1))
    engine.step()
    engine.scheduler.add(request_of("small", [3] * 18, max_tokens=2, arrived_at_s=2))
    engine.run()
    assert names(engine.ended) == ["old", "large", "small"]
    assert engine.ended[1].preemptions == 1


def test_host_blocks_that_are_just_being_emptied_are_not_filled_in_the_same_step() -> None:
    engine = engine_of(blocks=10, host_blocks=5, mode="swap", max_num_seqs=1, max_model_len=36)
    scheduler = engine.scheduler

    def step(seats: int) -> None:
        scheduler.limits = Limits(max_num_seqs=seats, max_batched_tokens=64, max_waiting=10)
        engine.step()

    scheduler.add(request_of("old", [1] * 17, max_tokens=15, priority=BATCH, arrived_at_s=0))
    scheduler.add(request_of("new", [2] * 15, max_tokens=15, priority=BATCH, arrived_at_s=1))
    for seats in (1, 2, 2, 1):
        step(seats)
    (swapped,) = scheduler.swapped
    swapped.urgent_at_s = 0.0  # as if its patience ended first: it takes the blocks that the other would grow into
    step(2)
    assert scheduler.running == [swapped]
    assert scheduler.preemptions == {Way.SWAP: 1, Way.RECOMPUTE: 1}
    engine.run()
    for sequence in engine.ended:
        assert list(sequence.generated) == expected(sequence.request, 0, 15)


def test_a_recomputed_sequence_finds_its_own_blocks_in_the_cache() -> None:
    engine = engine_of(max_num_seqs=2)
    for i in range(2):
        engine.scheduler.add(request_of(str(i), [i + 1] * 20, max_tokens=10, arrived_at_s=i))
    engine.step()
    engine.scheduler.limits = Limits(max_num_seqs=1, max_batched_tokens=64, max_waiting=10)
    engine.step()
    (paused,) = engine.scheduler.waiting.preempted
    assert (paused.status, paused.computed_tokens) == (Status.WAITING, 0)
    engine.scheduler.limits = Limits(max_num_seqs=2, max_batched_tokens=64, max_waiting=10)
    plan = engine.scheduler.plan()
    assert plan is not None
    assert [entry.new_tokens for entry in plan.scheduled] == [1, 1]  # 20 of 21 tokens were still there


def test_preempted_requests_do_not_use_up_the_queue() -> None:
    engine = engine_of(max_num_seqs=4, max_waiting=2)
    for i in range(4):
        engine.scheduler.add(request_of(str(i), [1], arrived_at_s=i))
        engine.step()
    engine.scheduler.limits = Limits(max_num_seqs=1, max_batched_tokens=64, max_waiting=2)
    engine.step()
    assert len(engine.scheduler.waiting.preempted) == 3
    for i in range(2):
        engine.scheduler.add(request_of(f"new {i}", [1], arrived_at_s=5))
    with pytest.raises(QueueFull):
        engine.scheduler.add(request_of("one too many", [1], arrived_at_s=5))


def test_who_is_turned_away_is_told_when_the_queue_will_have_been_worked_off() -> None:
    now_s = Ticks()
    rate = CompletionRate(now_s)
    assert rate.time_for_s(8) == 60.0
    for second in range(15):
        now_s.s = float(second)
        rate.note()
    now_s.s = 29.0
    assert rate.time_for_s(8) == 16.0  # 15 in half a minute
    now_s.s = 100.0
    assert rate.time_for_s(8) == 60.0


def test_a_caller_that_kept_asking_is_forgotten_before_names_fill_the_memory() -> None:
    scheduler = scheduler_of(max_waiting=10**6)
    for i in range(10_000):
        scheduler.add(request_of(str(i), [1], caller=f"caller {i}"))
        scheduler.waiting.served(f"caller {i}", 10)
        scheduler.waiting.served(f"passer-by {i}", 10)
        if i > 3:
            scheduler.cancel(str(i))
    assert len(scheduler.waiting._served) <= 4100


def test_tokens_in_shared_blocks_count_once_for_the_waste() -> None:
    engine = engine_of()
    engine.scheduler.add(request_of("a", range(1, 11), n=4, max_tokens=5))
    engine.step()
    scheduler = engine.scheduler
    assert (scheduler.pool.held, scheduler.used_tokens()) == (3, 10)
    assert waste_fraction(scheduler.used_tokens(), scheduler.pool.held, SIZE) == pytest.approx(2 / 12)
    engine.step()
    assert (scheduler.pool.held, scheduler.used_tokens()) == (6, 8 + 4 * 3)


LIVES = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": st.lists(st.integers(1, 2), min_size=1, max_size=40),
            "max_tokens": st.integers(1, 18),
            "n": st.sampled_from([1, 1, 1, 2, 5]),
            "priority": st.sampled_from(list(Priority)),
            "caller": st.sampled_from(["a", "b"]),
            "salt": st.sampled_from(["", "", "other"]),
            "patience": st.one_of(st.none(), st.integers(1, 40)),
            "waits": st.integers(0, 5),
            "seats": st.integers(1, 7),
            "budget": st.integers(1, 40),
        }
    ),
    min_size=1,
    max_size=14,
)


@given(
    lives=LIVES,
    blocks=st.integers(15, 40),
    host_blocks=st.integers(0, 40),
    mode=st.sampled_from(["auto", "swap", "recompute"]),
    prefix_caching=st.booleans(),
    stop_token=st.one_of(st.none(), st.integers(0, 10)),
)
def test_classes_deadlines_and_stops_leave_every_token_as_if_alone(
    lives: list[dict[str, Any]],
    blocks: int,
    host_blocks: int,
    mode: str,
    prefix_caching: bool,
    stop_token: int | None,
) -> None:
    """A clock tick per iteration; 15 blocks are the fewest in which the longest sequence fits."""
    now_s = Ticks()
    engine = engine_of(
        blocks=blocks,
        host_blocks=host_blocks,
        mode=mode,
        prefix_caching=prefix_caching,
        stop_token=stop_token,
        now_s=now_s,
    )
    late: list[Sequence] = []

    def step() -> bool:
        now_s.s += 1.0
        late.extend(engine.scheduler.expire())
        return engine.step()

    for i, life in enumerate(lives):
        kept = ("prompt", "max_tokens", "n", "priority", "caller", "salt")
        deadline_s = None if life["patience"] is None else now_s.s + life["patience"]
        settings = {key: life[key] for key in kept}
        engine.scheduler.add(request_of(str(i), arrived_at_s=now_s.s, deadline_s=deadline_s, **settings))
        engine.scheduler.limits = Limits(max_num_seqs=life["seats"], max_batched_tokens=life["budget"], max_waiting=99)
        for _ in range(life["waits"]):
            step()
    for _ in range(5000):
        if not step():
            break
    assert not engine.scheduler.has_work
    for sequence in [*engine.ended, *late]:
        assert list(sequence.generated) == expected(sequence.request, sequence.choice, sequence.generated_tokens)
    done = {(s.request.request_id, s.choice) for s in engine.ended}
    expired = {s.request.request_id for s in late}
    for i, life in enumerate(lives):
        assert str(i) in expired or {(str(i), choice) for choice in range(life["n"])} <= done
    assert engine.scheduler.pool.held == engine.scheduler.host_pool.held == 0
