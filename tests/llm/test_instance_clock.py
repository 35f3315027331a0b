from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.llm.instance_clock import ClockConfig, InstanceClock, InstanceView, WaitingPrompt
from slurm_power.llm.request_class import DEFAULT_SLO, Size
from tests.llm.made_up_profile import shard

CONFIG = ClockConfig(calm_epochs=2)
IDLE = InstanceView(
    batch=0,
    context_tokens=0,
    waiting=(),
    prompt_tokens_per_s=0.0,
    output_tokens_per_s=0.0,
    sizes=frozenset({Size.LARGE}),
)


def clock() -> InstanceClock:
    return InstanceClock(shard(2), CONFIG)


def settled(one: InstanceClock, view: InstanceView) -> int:
    for _ in range(20):
        one.decide(view)
    return one.clock_mhz


def test_an_idle_instance_comes_down_one_step_at_a_time_after_some_calm() -> None:
    one = clock()
    short = replace(IDLE, sizes=frozenset({Size.SMALL}))
    assert [one.decide(short).clock_mhz for _ in range(4)] == [2000, 1000, 500, 500]


def test_long_prompts_need_a_clock_whose_chunks_are_large_enough() -> None:
    assert settled(clock(), replace(IDLE, sizes=frozenset({Size.SMALL}))) == 500
    assert settled(clock(), replace(IDLE, sizes=frozenset(Size))) == 1000


def test_a_prompt_that_would_be_late_raises_the_clock_at_once() -> None:
    one = clock()
    settled(one, IDLE)
    pressed = replace(IDLE, waiting=(WaitingPrompt(tokens=900, slack_s=0.15),))
    assert one.decide(pressed).clock_mhz == 2000


def test_a_prompt_that_is_late_already_does_not_keep_the_clock_up_for_ever() -> None:
    late = replace(IDLE, waiting=(WaitingPrompt(tokens=10, slack_s=-5.0),))
    assert settled(clock(), late) == settled(clock(), IDLE)


def test_many_running_sequences_leave_no_room_for_a_low_clock() -> None:
    busy = replace(IDLE, batch=32, context_tokens=40_000, output_tokens_per_s=500.0)
    assert settled(clock(), busy) == 2000


def test_more_arrivals_than_a_clock_computes_need_a_higher_one() -> None:
    assert settled(clock(), replace(IDLE, prompt_tokens_per_s=4000.0)) > settled(clock(), IDLE)


def test_an_instance_slower_than_its_profile_gets_a_margin_and_loses_it_slowly() -> None:
    one = clock()
    for _ in range(20):
        one.observe(foreseen_s=0.05, seen_s=0.06)
    assert one.margin == pytest.approx(1.2, rel=0.01)
    one.observe(foreseen_s=0.05, seen_s=0.05)
    assert one.margin > 1.19
    for _ in range(500):
        one.observe(foreseen_s=0.05, seen_s=0.04)
    assert one.margin == CONFIG.least_margin


def test_a_margin_makes_chunks_smaller() -> None:
    exact, careful = clock(), clock()
    careful.margin = 1.2
    assert careful.decide(IDLE).chunk_tokens < exact.decide(IDLE).chunk_tokens


def test_a_clock_that_is_not_allowed_is_not_taken() -> None:
    one = clock()
    assert one.decide(IDLE, most_clock_mhz=1000).clock_mhz <= 1000
    pressed = replace(IDLE, waiting=(WaitingPrompt(tokens=5000, slack_s=0.1),))
    assert one.raise_now(pressed, most_clock_mhz=1000).clock_mhz <= 1000


@given(
    st.integers(0, 32),
    st.integers(0, 40_000),
    st.floats(0, 20_000),
    st.floats(0, 2000),
    st.lists(st.tuples(st.integers(1, 5000), st.floats(-1, 2)), max_size=5),
    st.sets(st.sampled_from(Size), min_size=1),
)
def test_iterations_keep_the_time_between_tokens_whenever_that_is_possible(
    batch: int,
    context: int,
    prompt_rate: float,
    output_rate: float,
    waiting: list[tuple[int, float]],
    sizes: set[Size],
) -> None:
    view = InstanceView(
        batch=batch,
        context_tokens=context,
        waiting=[WaitingPrompt(*one) for one in waiting],
        prompt_tokens_per_s=prompt_rate,
        output_tokens_per_s=output_rate,
        sizes=frozenset(sizes),
    )
    one = clock()
    for _ in range(6):
        found = one.decide(view)
        took_s = shard(2).iteration_s(
            batch=batch, context_tokens=context, prompt_tokens=found.chunk_tokens, clock_mhz=found.clock_mhz
        )
        assert took_s <= DEFAULT_SLO.tbt_s or found.clock_mhz == 2000
