from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.llm.fleet import (
    LARGEST,
    Drain,
    FleetConfig,
    FleetPlan,
    PoolPlan,
    Present,
    Reassign,
    Start,
    actions,
    early_load,
    plan_fleet,
    with_bursts,
)
from slurm_power.llm.operating_point import Load, capacity_per_s
from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass, class_named
from tests.llm.made_up_profile import profile

SS, LL = class_named("SS"), LARGEST
PROFILE = profile()
CONFIG = FleetConfig()


def loads(requests_per_s: float) -> dict[RequestClass, Load]:
    """The same for every class, each with the lengths of its name."""
    prompts, outputs = (128.0, 500.0, 2000.0), (50.0, 200.0, 450.0)
    each = requests_per_s / len(REQUEST_CLASSES)
    return {one: Load(each, each * prompts[one.prompt], each * outputs[one.output]) for one in REQUEST_CLASSES}


def plan(requests_per_s: float, config: FleetConfig = CONFIG, **options: object) -> FleetPlan:
    return plan_fleet(loads(requests_per_s), PROFILE, config, degrees=[2, 4], **options)  # type: ignore[arg-type]


def whole(load: dict[RequestClass, Load]) -> Load:
    total = Load()
    for one in load.values():
        total = total.plus(one)
    return total


@given(st.floats(0.1, 200.0))
def test_one_pool_is_never_below_what_the_load_needs(requests_per_s: float) -> None:
    (pool,) = plan(requests_per_s, one_pool=True).pools.values()
    shard = PROFILE.shard(pool.gpus)
    load = whole(loads(requests_per_s))
    capacity = capacity_per_s(shard, load, within_s=CONFIG.iteration_s, utilisation=CONFIG.utilisation)
    assert pool.instances * capacity >= load.requests_per_s * (1.0 - 1e-6)


@given(st.floats(0.1, 200.0))
def test_every_class_has_a_pool_that_may_hold_it_and_no_load_is_dropped(requests_per_s: float) -> None:
    found = plan(requests_per_s)
    assert all(found.serves[one].holds(one) for one in REQUEST_CLASSES)
    assert LARGEST in found.pools
    planned = sum(pool.load.requests_per_s for pool in found.pools.values())
    assert planned >= requests_per_s * (1.0 - 1e-6)


def test_a_small_fleet_is_one_pool_of_the_largest_class() -> None:
    assert set(plan(1.0).pools) == {LARGEST}


def test_no_load_still_keeps_an_instance() -> None:
    assert sum(pool.instances for pool in plan(0.0).pools.values()) == 1


def test_another_degree_must_be_worth_its_start() -> None:
    free = plan(2.0, one_pool=True).pools[LL]
    other = 4 if free.gpus == 2 else 2
    eager = plan(2.0, replace(CONFIG, switch_gain_fraction=0.0), before={LL: other}, one_pool=True)
    lazy = plan(2.0, replace(CONFIG, switch_gain_fraction=0.99), before={LL: other}, one_pool=True)
    assert eager.pools[LL].gpus == free.gpus
    assert lazy.pools[LL].gpus == other


def test_a_budget_of_gpus_is_kept_and_what_is_missing_is_said() -> None:
    found = plan(100.0, replace(CONFIG, most_gpus=8))
    assert found.gpus <= 8
    assert found.shortfall_gpus == plan(100.0).gpus - 8


def test_a_small_load_gets_more_room_for_its_bursts_than_a_large_one() -> None:
    small, large = Load(1.0, 500.0, 200.0), Load(100.0, 50_000.0, 20_000.0)
    assert with_bursts(small, CONFIG).requests_per_s / 1.0 > with_bursts(large, CONFIG).requests_per_s / 100.0 > 1.0


def planned(**pools: tuple[int, int]) -> FleetPlan:
    """name=(gpus, instances)"""
    made = {class_named(name): PoolPlan(gpus, count, Load(), 0.0) for name, (gpus, count) in pools.items()}
    return FleetPlan(made, dict.fromkeys(REQUEST_CLASSES, LARGEST))


def present(*rows: tuple[int, str, int]) -> list[Present]:
    return [Present(number, class_named(pool), gpus, requests=0) for number, pool, gpus in rows]


def test_what_is_missing_is_started() -> None:
    assert actions(planned(LL=(2, 3)), present((1, "LL", 2)), may_shrink=True) == [Start(LL, 2)] * 2


def test_an_instance_changes_its_pool_before_another_is_started() -> None:
    found = actions(planned(SS=(2, 1), LL=(2, 1)), present((1, "LL", 2), (2, "LL", 2)), may_shrink=True)
    assert found == [Reassign(2, SS)] or found == [Reassign(1, SS)]


def test_instances_become_fewer_only_when_they_may() -> None:
    there = present((1, "LL", 2), (2, "LL", 2))
    assert actions(planned(LL=(2, 1)), there, may_shrink=False) == []
    assert [type(one) for one in actions(planned(LL=(2, 1)), there, may_shrink=True)] == [Drain]


def test_a_degree_that_is_not_wanted_any_more_is_drained_at_any_time() -> None:
    found = actions(planned(LL=(2, 2)), present((1, "LL", 4)), may_shrink=False)
    assert Counter(found) == Counter([Start(LL, 2), Start(LL, 2), Drain(1)])


def test_the_emptier_server_is_emptied_first() -> None:
    alone, crowded = Present(1, LL, 2, requests=0, neighbours=0), Present(2, LL, 2, requests=0, neighbours=3)
    assert actions(planned(LL=(2, 1)), [alone, crowded], may_shrink=True) == [Drain(1)]


@given(
    st.lists(st.tuples(st.sampled_from(REQUEST_CLASSES), st.sampled_from([2, 4])), max_size=8),
    st.dictionaries(
        st.sampled_from(REQUEST_CLASSES), st.tuples(st.sampled_from([2, 4]), st.integers(1, 4)), max_size=4
    ),
)
def test_after_all_actions_the_fleet_is_as_planned(
    there: list[tuple[RequestClass, int]], pools: dict[RequestClass, tuple[int, int]]
) -> None:
    wanted = FleetPlan({pool: PoolPlan(gpus, count, Load(), 0.0) for pool, (gpus, count) in pools.items()}, {})
    fleet = {number: (pool, gpus) for number, (pool, gpus) in enumerate(there)}
    listed = [Present(number, pool, gpus, requests=0) for number, (pool, gpus) in fleet.items()]
    number = len(fleet)
    for action in actions(wanted, listed, may_shrink=True):
        match action:
            case Start(pool, gpus):
                fleet[number] = (pool, gpus)
                number += 1
            case Drain(gone):
                del fleet[gone]
            case Reassign(moved, pool):
                fleet[moved] = (pool, fleet[moved][1])
    counted = Counter(fleet.values())
    assert counted == Counter({(pool, gpus): count for pool, (gpus, count) in pools.items()})


def test_arrivals_as_foreseen_are_no_reason_to_plan_early() -> None:
    tokens = sum(one.prompt_tokens_per_s + one.output_tokens_per_s for one in loads(2.0).values())
    assert early_load(loads(2.0), seen_tokens_per_s=1.1 * tokens, config=CONFIG) is None
    doubled = early_load(loads(2.0), seen_tokens_per_s=2.0 * tokens, config=CONFIG)
    assert doubled is not None
    assert whole(doubled).requests_per_s == pytest.approx(4.0)
