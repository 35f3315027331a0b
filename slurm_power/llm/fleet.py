"""The cluster manager's decisions: how many instances of which degree each pool has in the next epoch. Pure.

Every instance serves the same model, so that an instance changes its pool by a word to the router; only a change of the
degree of tensor parallelism means a new one. Drain comes before stop, start before drain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slurm_power.llm.operating_point import Load, capacity_per_s, largest_chunk, settle
from slurm_power.llm.profile import ServingProfile, ShardProfile
from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass
from slurm_power.llm.routing import pool_map

LARGEST = REQUEST_CLASSES[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    epoch_s: float = 1800.0
    """How often instances may become fewer."""

    shard_s: float = 300.0
    """How often the degree of parallelism is chosen, and how often more instances may be started."""

    utilisation: float = 0.95
    """Of an instance's seats, cache and prompts' time, that the foreseen load may take at the highest clock."""

    burst_sigmas: float = 1.25
    """Requests that run at the same time vary by the root of their number: so many of these deviations are kept free.
    A small fleet therefore keeps a larger share free than a large one."""

    iteration_s: float = 0.095
    """That the foreseen load is judged with: below the time between two tokens that was promised."""

    switch_gain_fraction: float = 0.1
    """Another degree must save so much of the watts, or it is not worth the start."""

    thin_instances: float = 1.0
    """A class that does not fill so many instances goes to a larger pool."""

    early_fraction: float = 1.25
    """Arrivals above so much of what was foreseen are a reason to plan before the epoch has ended."""

    early_s: float = 30.0
    """How often that is looked at."""

    most_gpus: int = 10_000
    least_instances: int = 1
    """Of the whole fleet: one that dies must leave another."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    gpus: int  # of each instance
    instances: int
    load: Load
    watts: float  # foreseen, of all


@dataclass(frozen=True, slots=True)
class FleetPlan:
    pools: Mapping[RequestClass, PoolPlan]
    serves: Mapping[RequestClass, RequestClass]  # class -> pool
    shortfall_gpus: int = 0  # that the load needs beyond the budget

    @property
    def gpus(self) -> int:
        return sum(one.gpus * one.instances for one in self.pools.values())

    @property
    def watts(self) -> float:
        return sum(one.watts for one in self.pools.values())

    def count(self, gpus: int) -> int:
        return sum(one.instances for one in self.pools.values() if one.gpus == gpus)


@dataclass(frozen=True, slots=True)
class Present:
    number: int
    pool: RequestClass
    gpus: int
    requests: int
    neighbours: int = 0  # other instances on its server: the emptier, the sooner it can be switched off


@dataclass(frozen=True, slots=True)
class Start:
    pool: RequestClass
    gpus: int


@dataclass(frozen=True, slots=True)
class Drain:
    number: int


@dataclass(frozen=True, slots=True)
class Reassign:
    number: int
    pool: RequestClass


Action = Start | Drain | Reassign


def plan_fleet(
    load: Mapping[RequestClass, Load],
    profile: ServingProfile,
    config: FleetConfig,
    *,
    degrees: Sequence[int],
    before: Mapping[RequestClass, int] | None = None,
    one_pool: bool = False,
    steered_clocks: bool = True,
) -> FleetPlan:
    """`before`: pool -> degree it has now. Thin classes are promoted, each pool gets whole instances only and hands the
    rest of its load up; the largest pool rounds up. Pools of their own must draw less than one for all: what is left
    over in each of them costs more than it gains where the fleet is small."""
    sizing = _Sizing(profile, config, degrees, before or {}, steered_clocks)
    whole = sizing.pools(load, dict.fromkeys(REQUEST_CLASSES, LARGEST))
    plan = whole
    if not one_pool:
        split = sizing.pools(load, sizing.serves(load))
        plan = min(whole, split, key=lambda one: (one.watts, one.gpus))
    return _within_budget(replace(plan, shortfall_gpus=max(0, plan.gpus - config.most_gpus)), config)


def early_load(
    foreseen: Mapping[RequestClass, Load], *, seen_tokens_per_s: float, config: FleetConfig
) -> dict[RequestClass, Load] | None:
    """The load to plan for at once, in the foreseen mix; None: it is as foreseen, or less."""
    tokens = sum(one.prompt_tokens_per_s + one.output_tokens_per_s for one in foreseen.values())
    if not tokens or seen_tokens_per_s <= config.early_fraction * tokens:
        return None
    return {one: load.times(seen_tokens_per_s / tokens) for one, load in foreseen.items()}


def actions(plan: FleetPlan, present: Sequence[Present], *, may_shrink: bool) -> list[Action]:
    """From what is there (starting ones too, draining ones not) to the plan. Without `may_shrink` only instances of a
    degree that the plan does not know any more are drained. The caller drains once what is started serves."""
    found: list[Action] = []
    kept: list[Present] = []
    for gpus in sorted({one.gpus for one in present} | {one.gpus for one in plan.pools.values()}):
        there = sorted((one for one in present if one.gpus == gpus), key=lambda one: (-one.neighbours, -one.requests))
        wanted = plan.count(gpus)
        surplus = there[wanted:] if may_shrink or not wanted else []
        found += [Drain(one.number) for one in surplus]
        kept += [one for one in there if one not in surplus]
    return _share_out(plan, kept) + found


def _share_out(plan: FleetPlan, kept: Sequence[Present]) -> list[Action]:
    """Who is in which pool, with as few changes as possible; what is missing is started."""
    free = list(kept)
    found: list[Action] = []
    open_places: list[tuple[RequestClass, int]] = []
    for pool, wanted in plan.pools.items():
        mine = [one for one in free if one.pool == pool and one.gpus == wanted.gpus][: wanted.instances]
        for one in mine:
            free.remove(one)
        open_places += [(pool, wanted.gpus)] * (wanted.instances - len(mine))
    for pool, gpus in open_places:
        other = next((one for one in free if one.gpus == gpus), None)
        if other is None:
            found.append(Start(pool, gpus))
        else:
            free.remove(other)
            found.append(Reassign(other.number, pool))
    found += [Reassign(one.number, LARGEST) for one in free if one.pool != LARGEST]
    return found


def least_watts(
    shard: ShardProfile, load: Load, instances: int, config: FleetConfig, *, steered_clocks: bool
) -> float | None:
    """Of `instances` that share the load evenly, each at the lowest clock that keeps up; None: they cannot."""
    each = load.times(1.0 / instances)
    clocks = shard.clocks_mhz if steered_clocks else shard.clocks_mhz[-1:]
    for clock_mhz in clocks:
        point = _point(shard, each, clock_mhz, config)
        if point is not None:
            return point * instances
    return None


def _point(shard: ShardProfile, each: Load, clock_mhz: int, config: FleetConfig) -> float | None:
    batch, chunk = 1.0, 0
    watts = None
    for _ in range(2):
        chunk = largest_chunk(
            shard,
            batch=batch,
            context_tokens=batch * each.context_tokens,
            clock_mhz=clock_mhz,
            within_s=config.iteration_s,
        )
        if chunk < 192:
            return None
        found = settle(shard, each, clock_mhz=clock_mhz, chunk_tokens=chunk)
        if found is None or found.batch > shard.most_sequences:
            return None
        batch, watts = found.batch, found.watts
    return watts if each.prompt_tokens_per_s * config.iteration_s <= 0.9 * chunk else None


def with_bursts(load: Load, config: FleetConfig) -> Load:
    """The load that leaves room for its own variation."""
    running = load.output_tokens_per_s * 0.6 * config.iteration_s
    return load.times(1.0 + config.burst_sigmas / math.sqrt(max(1.0, running))) if running else load


@dataclass(frozen=True, slots=True)
class _Sizing:
    profile: ServingProfile
    config: FleetConfig
    degrees: Sequence[int]
    before: Mapping[RequestClass, int]
    steered_clocks: bool

    def serves(self, load: Mapping[RequestClass, Load]) -> dict[RequestClass, RequestClass]:
        needed = {}
        for one in REQUEST_CLASSES:
            mine = load.get(one, Load())
            capacities = [self._capacity(gpus, mine) for gpus in self.degrees]
            needed[one] = min((mine.requests_per_s / each for each in capacities if each > 0.0), default=0.0)
        return pool_map(needed, thin_instances=self.config.thin_instances)

    def pools(self, load: Mapping[RequestClass, Load], serves: Mapping[RequestClass, RequestClass]) -> FleetPlan:
        loads: dict[RequestClass, Load] = {}
        for one, pool in serves.items():
            loads[pool] = loads.get(pool, Load()).plus(load.get(one, Load()))
        pools: dict[RequestClass, PoolPlan] = {}
        rest = Load()
        for pool in sorted(loads, key=lambda one: (one.prompt + one.output, one.prompt)):
            mine = loads[pool]
            if pool == LARGEST:
                mine = with_bursts(mine.plus(rest), self.config)
            sized = self._best(mine, self.before.get(pool), rounds_up=pool == LARGEST)
            if sized is not None:
                pools[pool] = sized
            taken = sized.load.requests_per_s / mine.requests_per_s if sized and mine.requests_per_s else 0.0
            rest = rest.plus(mine.times(1.0 - min(1.0, taken)))
        return FleetPlan(pools, serves)

    def _best(self, load: Load, before: int | None, *, rounds_up: bool) -> PoolPlan | None:
        """By watts for each request; another degree than `before` must be worth its start."""
        sized = (self._sized(gpus, load, rounds_up=rounds_up) for gpus in self.degrees)
        choices = [one for one in sized if one is not None]
        if not choices:
            return None
        best = min(choices, key=lambda one: one.watts / max(1e-9, one.load.requests_per_s))
        stays = next((one for one in choices if one.gpus == before), None)
        if stays is None or stays.load.requests_per_s < 0.999 * best.load.requests_per_s:
            return best
        return stays if stays.watts * (1.0 - self.config.switch_gain_fraction) <= best.watts else best

    def _sized(self, gpus: int, load: Load, *, rounds_up: bool) -> PoolPlan | None:
        shard, config = self.profile.shard(gpus), self.config
        capacity = self._capacity(gpus, load)
        if capacity <= 0.0:
            return None
        needed = load.requests_per_s / capacity
        count = max(config.least_instances, math.ceil(needed)) if rounds_up else math.floor(needed)
        if not count:
            return None
        taken = load if rounds_up else load.times(count / needed)
        watts = least_watts(shard, taken, count, config, steered_clocks=self.steered_clocks)
        if watts is None:
            watts = shard.peak_watts(shard.most_sequences) * count
        return PoolPlan(gpus, count, taken, watts)

    def _capacity(self, gpus: int, load: Load) -> float:
        config = self.config
        shard = self.profile.shard(gpus)
        return capacity_per_s(shard, load, within_s=config.iteration_s, utilisation=config.utilisation)


def _within_budget(plan: FleetPlan, config: FleetConfig) -> FleetPlan:
    """Too few GPUs for all: the pools with most instances give first."""
    pools = dict(plan.pools)
    while sum(one.gpus * one.instances for one in pools.values()) > config.most_gpus:
        pool, most = max(pools.items(), key=lambda item: item[1].gpus * item[1].instances)
        if sum(one.instances for one in pools.values()) <= 1:
            break
        if most.instances == 1:
            pools.pop(pool)
        else:
            fewer = most.instances - 1
            pools[pool] = PoolPlan(most.gpus, fewer, most.load, most.watts * fewer / most.instances)
    return FleetPlan(pools, plan.serves, plan.shortfall_gpus)
