"""A pool may draw so many watts: what it gives up for that, and how what the site must shed is shared out. Pure.

In the order of least harm: clock (answers come slower), batch (some wait), model (answers are other ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class DrawProfile(Protocol):
    """What instances of one model draw; a profile of the serving engine answers it."""

    @property
    def clocks_mhz(self) -> Sequence[int]: ...  # ascending

    def draw_watts(self, *, clock_mhz: int, batch: int) -> float: ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    name: str
    profile: DrawProfile


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """Of every instance of the pool."""

    model: str
    clock_mhz: int  # at most
    max_num_seqs: int
    pool_watts: float  # at most, by the profile
    shortfall_watts: float  # that could not be given up

    @property
    def holds(self) -> bool:
        return self.shortfall_watts <= 0.0


def obey(
    models: Sequence[ServedModel], *, instances: int, budget_watts: float, max_num_seqs: int, least_num_seqs: int = 1
) -> BudgetPlan:
    """`models`: the wanted one first, then those that may stand in for it. Every instance counts with its fullest
    batch: load may come at any time, and the budget holds then too."""
    if not models:
        raise ValueError("a pool serves at least one model")
    each_watts = budget_watts / max(1, instances)
    for model in models:
        found = _within(model, each_watts, max_num_seqs=max_num_seqs, least_num_seqs=least_num_seqs)
        if found is not None:
            clock_mhz, batch = found
            return _plan(model, clock_mhz, batch, instances, budget_watts)
    least = min(models, key=lambda one: _draw(one, one.profile.clocks_mhz[0], least_num_seqs))
    return _plan(least, least.profile.clocks_mhz[0], least_num_seqs, instances, budget_watts)


def _within(model: ServedModel, each_watts: float, *, max_num_seqs: int, least_num_seqs: int) -> tuple[int, int] | None:
    """The highest clock at the full batch; only below the lowest clock the largest batch."""
    for clock_mhz in reversed(model.profile.clocks_mhz):
        if _draw(model, clock_mhz, max_num_seqs) <= each_watts:
            return clock_mhz, max_num_seqs
    lowest_mhz = model.profile.clocks_mhz[0]
    if _draw(model, lowest_mhz, least_num_seqs) > each_watts:
        return None
    low, high = least_num_seqs, max_num_seqs  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _draw(model, lowest_mhz, middle) <= each_watts else (low, middle)
    return lowest_mhz, low


def _plan(model: ServedModel, clock_mhz: int, batch: int, instances: int, budget_watts: float) -> BudgetPlan:
    pool_watts = instances * _draw(model, clock_mhz, batch)
    return BudgetPlan(model.name, clock_mhz, batch, pool_watts, max(0.0, pool_watts - budget_watts))


def _draw(model: ServedModel, clock_mhz: int, batch: int) -> float:
    return model.profile.draw_watts(clock_mhz=clock_mhz, batch=batch)


@dataclass(frozen=True, slots=True)
class PoolDraw:
    """What a pool manager reports of one of its pools."""

    name: str
    draw_watts: float
    least_watts: float  # below which it cannot serve


def pool_budgets(
    pools: Sequence[PoolDraw], *, shed_watts: float, envelope_watts: float, it_watts: float | None
) -> dict[str, float]:
    """By pool, from what the plan sheds now: what the envelope leaves beside everything else that draws. Nothing to
    shed, or nobody knows what is drawn: no budgets. The room is not what pools draw now less what is shed: a pool that
    obeys would be asked for less each time."""
    if shed_watts <= 0.0 or it_watts is None or not pools:
        return {}
    others_watts = max(0.0, it_watts - sum(pool.draw_watts for pool in pools))
    return share_room(pools, room_watts=max(0.0, envelope_watts - others_watts))


def share_room(pools: Sequence[PoolDraw], *, room_watts: float) -> dict[str, float]:
    """Less than is drawn now: each gives in proportion to what it can, and none goes below its least. More: each may
    grow in proportion to what it draws, for one with many instances needs more."""
    drawn_watts = sum(pool.draw_watts for pool in pools)
    if room_watts >= drawn_watts:
        if not drawn_watts:
            return {pool.name: room_watts / len(pools) for pool in pools}
        return {pool.name: pool.draw_watts * room_watts / drawn_watts for pool in pools}
    can_watts = {pool.name: max(0.0, pool.draw_watts - pool.least_watts) for pool in pools}
    all_watts = sum(can_watts.values())
    share = min(1.0, (drawn_watts - room_watts) / all_watts) if all_watts else 0.0
    return {pool.name: pool.draw_watts - share * can_watts[pool.name] for pool in pools}
