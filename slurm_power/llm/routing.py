"""Which pool and which instance a request goes to, and which of those that wait go next. Asked once per request.

An instance is whatever has the attributes of `Instance`: the router's own record or the simulator's, so that nothing is
copied to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeVar

from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass

LARGEST = REQUEST_CLASSES[-1]


class Instance(Protocol):
    """What is there, counted with what is on its way."""

    @property
    def accepts(self) -> bool: ...  # alive, not draining

    @property
    def seats(self) -> int: ...  # sequences that may run at the same time

    @property
    def requests(self) -> int: ...  # that run or wait there

    @property
    def capacity_tokens(self) -> int: ...  # of its cache

    @property
    def held_tokens(self) -> int: ...  # prompts and foreseen answers of all that is there

    @property
    def prefill_tokens(self) -> int: ...  # of prompts that are not computed yet

    @property
    def prefill_tokens_per_s(self) -> float: ...  # at its clock


@dataclass(slots=True)
class InstanceLoad:
    """An `Instance` of plain values."""

    name: str
    accepts: bool = True
    seats: int = 128
    requests: int = 0
    capacity_tokens: int = 1_000_000
    held_tokens: int = 0
    prefill_tokens: int = 0
    prefill_tokens_per_s: float = 10_000.0


class Ask(NamedTuple):
    """One request, as far as routing cares."""

    request_class: RequestClass
    prompt_tokens: int
    context_tokens: int  # prompt and foreseen answer: what it will hold of a cache
    slack_s: float  # until its first token is due


AnInstance = TypeVar("AnInstance", bound=Instance)


class Choice(NamedTuple):
    pool: RequestClass
    place: int  # among the pool's instances
    spilled: bool  # to a larger pool than its own


def pool_map(
    needed_instances: Mapping[RequestClass, float],
    *,
    thin_instances: float = 0.5,
    before: Mapping[RequestClass, RequestClass] | None = None,
) -> dict[RequestClass, RequestClass]:
    """Class -> class of the pool that serves it. A class whose load does not fill `thin_instances` of an instance is
    promoted to a component-wise larger pool; the largest keeps what is left. A pool that is there (`before`) goes only
    well below that, so that none comes and goes with every epoch."""
    load = {one: max(0.0, needed_instances.get(one, 0.0)) for one in REQUEST_CLASSES}
    served_by = {one: one for one in REQUEST_CLASSES}
    for one in sorted(REQUEST_CLASSES, key=_order):
        stays = before is not None and before.get(one) == one
        if one == LARGEST or load[one] >= thin_instances * (_STAYS_FRACTION if stays else 1.0):
            continue
        larger = _next_larger(one, load)
        load[larger] += load[one]
        load[one] = 0.0
        for promoted, pool in served_by.items():
            if pool == one:
                served_by[promoted] = larger
    return served_by


_STAYS_FRACTION = 0.7


def _next_larger(one: RequestClass, load: Mapping[RequestClass, float]) -> RequestClass:
    """One step up in either way: where more load is already, so that the fewest fragments are left. With no load on
    either side the longer prompt: what an answer costs lies in its tokens, not in its prompt's."""
    steps = [other for other in REQUEST_CLASSES if other.holds(one) and _order(other)[0] == _order(one)[0] + 1]
    return max(steps, key=lambda other: (load[other], other.prompt))


def _order(one: RequestClass) -> tuple[int, int]:
    return int(one.prompt) + int(one.output), int(one.prompt)


def pools_for(
    one: RequestClass, serves: Mapping[RequestClass, RequestClass], there: frozenset[RequestClass]
) -> tuple[RequestClass, ...]:
    """Its own pool first, then the component-wise larger ones, nearest first."""
    return _path(serves.get(one, one), there)


@lru_cache(maxsize=4096)
def _path(own: RequestClass, there: frozenset[RequestClass]) -> tuple[RequestClass, ...]:
    return tuple(sorted((pool for pool in there if pool.holds(own)), key=_order))


def choose(ask: Ask, pools: Mapping[RequestClass, Sequence[Instance]], path: Iterable[RequestClass]) -> Choice | None:
    """The least loaded instance with room in the first pool of `path` that has one. None: all are full, so it waits."""
    spilled = False
    for pool in path:
        index = least_loaded(ask, pools[pool])
        if index is not None:
            return Choice(pool, index, spilled)
        spilled = True
    return None


def least_loaded(ask: Ask, instances: Sequence[Instance]) -> int | None:
    """By the fuller of its seats and its cache, then by the prompts before it; None: nobody has room. Clocks come down
    most where load is spread evenly, because power grows faster than the clock."""
    best, best_score = None, 2.0
    for index, one in enumerate(instances):
        if not has_room(one, ask):
            continue
        score = max(one.requests / one.seats, one.held_tokens / one.capacity_tokens)
        if one.prefill_tokens:
            score += 1e-3 * min(1.0, one.prefill_tokens / one.prefill_tokens_per_s)
        if score < best_score:
            best, best_score = index, score
    return best


def has_room(one: Instance, ask: Ask) -> bool:
    """A seat, cache for its whole context, and prompts before it that end before its first token is due."""
    return (
        one.accepts
        and one.requests < one.seats
        and one.held_tokens + ask.context_tokens <= one.capacity_tokens
        and (
            not one.prefill_tokens
            or (one.prefill_tokens + ask.prompt_tokens) <= max(0.0, ask.slack_s) * one.prefill_tokens_per_s
        )
    )


class Waiting(NamedTuple):
    """Sorts by urgency: earliest deadline first, then by arrival."""

    deadline_s: float
    number: int  # in order of arrival
    ask: Ask


class Room(NamedTuple):
    """What one instance can take before its next iteration."""

    seats: int
    tokens: int  # of cache
    prompt_tokens: int  # that one iteration computes beside what runs, within the time between two tokens


def batch_for(waiting: Sequence[Waiting], room: Room, *, now_s: float, look_past: int = 16) -> list[Waiting]:
    """Who goes next, together: `waiting` is in the order of deadlines. Contexts that fit beside each other share an
    iteration; what does not fit is passed over by smaller ones, unless it is late already: then it waits no longer than
    it must. One whose prompt alone exceeds an iteration goes first or not at all; it is computed in chunks."""
    chosen: list[Waiting] = []
    seats, tokens, prompts = room
    passed = 0
    for one in waiting:
        if seats < 1 or passed > look_past:
            break
        fits_iteration = one.ask.prompt_tokens <= prompts or not chosen
        if one.ask.context_tokens <= tokens and fits_iteration:
            chosen.append(one)
            seats, tokens, prompts = seats - 1, tokens - one.ask.context_tokens, prompts - one.ask.prompt_tokens
        elif one.deadline_s <= now_s:
            break
        else:
            passed += 1
    return chosen
