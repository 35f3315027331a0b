"""Pools and instances: thin classes are promoted, full pools spill upwards, those that wait go by deadline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slurm_power.llm.request_class import REQUEST_CLASSES, class_named
from slurm_power.llm.routing import (
    LARGEST,
    Ask,
    Choice,
    InstanceLoad,
    Room,
    Waiting,
    batch_for,
    choose,
    least_loaded,
    pool_map,
    pools_for,
)

SS, SM, SL, MS, MM, ML, LS, LM, LL = REQUEST_CLASSES
OWN = {one: one for one in REQUEST_CLASSES}


def ask(prompt: int = 100, output: int = 50, *, slack_s: float = 1.0, one: str = "SS") -> Ask:
    return Ask(class_named(one), prompt, prompt + output, slack_s)


@given(st.dictionaries(st.sampled_from(REQUEST_CLASSES), st.floats(0, 5)), st.floats(0.05, 1.0))
def test_every_class_is_served_by_a_pool_no_smaller_than_it(load: dict[object, float], thin: float) -> None:
    serves = pool_map(load, thin_instances=thin)  # type: ignore[arg-type]
    assert set(serves) == set(REQUEST_CLASSES)
    for one, pool in serves.items():
        assert pool.holds(one)
        assert serves[pool] == pool


def test_full_classes_keep_their_pools_and_thin_ones_join_the_fullest_step_above() -> None:
    serves = pool_map({SS: 2.0, SM: 0.1, SL: 0.0, MM: 3.0, LL: 1.0})
    assert serves[SS] == SS
    assert serves[MM] == MM
    assert serves[SM] == MM  # of SL (empty) and MM
    assert serves[LS] == LL


def test_with_hardly_any_load_one_pool_serves_all() -> None:
    assert set(pool_map({SS: 0.1, MM: 0.1}).values()) == {LARGEST}


def test_fragments_that_fill_a_pool_together_keep_it() -> None:
    assert pool_map({SM: 0.3, MS: 0.3, MM: 0.0})[SM] == MM


def test_a_pool_that_is_there_stays_while_its_load_wavers() -> None:
    assert pool_map({MM: 0.4}, thin_instances=0.5)[MM] != MM
    assert pool_map({MM: 0.4}, thin_instances=0.5, before=OWN)[MM] == MM
    assert pool_map({MM: 0.3}, thin_instances=0.5, before=OWN)[MM] != MM


def test_a_request_goes_to_its_own_pool_then_to_larger_ones_nearest_first() -> None:
    there = frozenset({SM, MM, LS, LL})
    assert pools_for(SM, OWN, there) == (SM, MM, LL)
    assert pools_for(MS, {**OWN, MS: MM}, there) == (MM, LL)


def test_a_full_pool_spills_to_a_larger_one_and_never_to_a_smaller() -> None:
    pools = {SM: [InstanceLoad("a", seats=2, requests=2)], MM: [InstanceLoad("b")], SS: [InstanceLoad("c")]}
    path = pools_for(SM, OWN, frozenset(pools))
    assert choose(ask(one="SM"), pools, path) == Choice(MM, 0, spilled=True)
    pools[MM][0].accepts = False
    assert choose(ask(one="SM"), pools, path) is None


def test_an_instance_needs_a_seat_cache_and_time_for_the_prompts_before() -> None:
    assert least_loaded(ask(), [InstanceLoad("a", seats=1, requests=1)]) is None
    assert least_loaded(ask(100, 50), [InstanceLoad("a", capacity_tokens=1000, held_tokens=851)]) is None
    assert least_loaded(ask(100, 50), [InstanceLoad("a", capacity_tokens=1000, held_tokens=850)]) == 0
    busy = InstanceLoad("a", prefill_tokens=950, prefill_tokens_per_s=1000.0)
    assert least_loaded(ask(100, slack_s=1.0), [busy]) is None
    assert least_loaded(ask(50, slack_s=1.0), [busy]) == 0


def test_a_prompt_whose_deadline_no_instance_can_hold_still_finds_an_idle_one() -> None:
    assert least_loaded(ask(100_000, slack_s=0.1), [InstanceLoad("a")]) == 0


def test_the_least_loaded_instance_is_taken_by_its_fuller_resource() -> None:
    seats = InstanceLoad("a", seats=10, requests=6, capacity_tokens=1000)
    cache = InstanceLoad("b", seats=10, requests=1, capacity_tokens=1000, held_tokens=500)
    assert least_loaded(ask(), [seats, cache]) == 1


def waiting(number: int, deadline_s: float, prompt: int, output: int = 10) -> Waiting:
    return Waiting(deadline_s, number, ask(prompt, output))


def numbers(chosen: list[Waiting]) -> list[int]:
    return [one.number for one in chosen]


def test_the_earliest_deadlines_share_an_iteration_as_far_as_contexts_fit() -> None:
    queue = sorted([waiting(0, 3.0, 100), waiting(1, 1.0, 100), waiting(2, 2.0, 500), waiting(3, 4.0, 50)])
    assert numbers(batch_for(queue, Room(10, 300, 1000), now_s=0.0)) == [1, 0, 3]
    assert numbers(batch_for(queue, Room(2, 10_000, 1000), now_s=0.0)) == [1, 2]


def test_nobody_overtakes_one_that_is_late() -> None:
    queue = [waiting(0, 1.0, 500), waiting(1, 2.0, 10)]
    assert numbers(batch_for(queue, Room(5, 100, 1000), now_s=0.5)) == [1]
    assert numbers(batch_for(queue, Room(5, 100, 1000), now_s=1.0)) == []


def test_a_prompt_longer_than_an_iteration_goes_first_and_then_alone() -> None:
    queue = [waiting(0, 1.0, 5000), waiting(1, 2.0, 100), waiting(2, 3.0, 100)]
    assert numbers(batch_for(queue, Room(5, 10_000, 2000), now_s=0.0)) == [0]
    assert numbers(batch_for([queue[1], queue[0]], Room(5, 10_000, 2000), now_s=0.0)) == [1]
