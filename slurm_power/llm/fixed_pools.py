"""A fleet whose pools a site has named, instead of those that save most: each always has an instance. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slurm_power.llm.fleet import FleetConfig, FleetPlan, PoolPlan, plan_fleet
from slurm_power.llm.operating_point import Load
from slurm_power.llm.profile import ServingProfile
from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass
from slurm_power.llm.routing import LARGEST


def plan_fixed_pools(
    load: Mapping[RequestClass, Load],
    pools: Sequence[RequestClass],
    profile: ServingProfile,
    config: FleetConfig,
    *,
    degrees: Sequence[int],
    steered_clocks: bool,
) -> FleetPlan:
    """Each class goes to the smallest of `pools` that holds it; the largest class is always one of them."""
    there = sorted({*pools, LARGEST}, key=lambda one: (one.prompt + one.output, one.prompt))
    serves = {one: next(pool for pool in there if pool.holds(one)) for one in REQUEST_CLASSES}
    sized: dict[RequestClass, PoolPlan] = {}
    for pool in there:
        mine = {one: load.get(one, Load()) for one in REQUEST_CLASSES if serves[one] == pool}
        plan = plan_fleet(mine, profile, config, degrees=degrees, one_pool=True, steered_clocks=steered_clocks)
        sized[pool] = plan.pools[LARGEST]
    return FleetPlan(_within(sized, config.most_gpus), serves)


def _within(sized: Mapping[RequestClass, PoolPlan], most_gpus: int) -> dict[RequestClass, PoolPlan]:
    """Too few GPUs for all: the pools with most instances give first, and none gives its last."""
    pools = dict(sized)
    while sum(one.gpus * one.instances for one in pools.values()) > most_gpus:
        pool, most = max(pools.items(), key=lambda item: item[1].instances)
        if most.instances <= 1:
            break
        fewer = most.instances - 1
        pools[pool] = PoolPlan(most.gpus, fewer, most.load, most.watts * fewer / most.instances)
    return pools
