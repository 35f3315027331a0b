"""Requests that would be late: reorder, raise the clock, send elsewhere, refuse, in this order of harm. Pure.

Each step is taken only as far as the ones before it did not help.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

_MOST_RETRY_S = 60.0


class Queued(NamedTuple):
    """One request whose first token is not out yet."""

    number: int  # the caller's own name for it
    slack_s: float  # until its first token is due
    prefill_s: float  # of its own prompt, at the present clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """What could help besides order."""

    speedup: float = 1.0  # of prompts at the highest clock over the present one; 1: it is there already
    elsewhere_s: float | None = None  # until another pool could begin with a prompt; None: no other has room
    elsewhere_requests: int = 0  # it can take


@dataclass(frozen=True, slots=True)
class EmergencyPlan:
    order: tuple[int, ...]  # of those that stay, by number
    raise_clock: bool
    reroute: tuple[int, ...]
    reject: tuple[int, ...]
    retry_after_s: float  # for the refused: when what stays will be through

    @property
    def changes(self) -> bool:
        return self.raise_clock or bool(self.reroute or self.reject)


def plan_emergency(queue: Sequence[Queued], relief: Relief) -> EmergencyPlan:
    """`queue`: those ahead first, as they would be computed now. What was late before it could be helped is not
    refused: whoever waited longest is answered late rather than never."""
    if not late(queue):
        return EmergencyPlan(tuple(one.number for one in queue), False, (), (), 0.0)
    by_deadline = sorted(queue, key=lambda one: (one.slack_s, one.number))
    if not late(by_deadline):
        return _plan(by_deadline)
    faster = [one._replace(prefill_s=one.prefill_s / relief.speedup) for one in by_deadline]
    raises = relief.speedup > 1.0
    if not late(faster):
        return _plan(faster, raise_clock=raises)
    stays, moved = _without_late(faster)
    helped = [one for one in moved if _in_time_elsewhere(one, relief)][: relief.elsewhere_requests]
    refused = [one for one in moved if one not in helped and one.slack_s > 0.0]
    stays = sorted([*stays, *(one for one in moved if one not in helped and one.slack_s <= 0.0)], key=_urgency)
    return _plan(stays, raise_clock=raises, reroute=helped, reject=refused)


def late(queue: Sequence[Queued]) -> bool:
    """Whether any, computed one after the other in this order, misses its deadline."""
    return any(done_s > one.slack_s for done_s, one in zip(_done_s(queue), queue, strict=True))


def retry_after_s(backlog_s: float) -> float:
    """Whole seconds, never 0: whoever asks again at once is part of the trouble."""
    return min(_MOST_RETRY_S, max(1.0, math.ceil(backlog_s)))


def _without_late(queue: Sequence[Queued]) -> tuple[list[Queued], list[Queued]]:
    """As few as possible leave so that the rest is in time (Moore and Hodgson): whenever one would be late, the longest
    of those before it goes. `queue` is in the order of deadlines."""
    stays: list[Queued] = []
    leaves: list[Queued] = []
    done_s = 0.0
    for one in queue:
        stays.append(one)
        done_s += one.prefill_s
        if done_s > one.slack_s:
            longest = one if one.slack_s <= 0.0 else max(stays, key=lambda each: each.prefill_s)
            stays.remove(longest)
            leaves.append(longest)
            done_s -= longest.prefill_s
    return stays, leaves


def _in_time_elsewhere(one: Queued, relief: Relief) -> bool:
    return relief.elsewhere_s is not None and relief.elsewhere_s + one.prefill_s <= one.slack_s


def _plan(
    stays: Sequence[Queued],
    *,
    raise_clock: bool = False,
    reroute: Sequence[Queued] = (),
    reject: Sequence[Queued] = (),
) -> EmergencyPlan:
    return EmergencyPlan(
        order=tuple(one.number for one in stays),
        raise_clock=raise_clock,
        reroute=tuple(one.number for one in reroute),
        reject=tuple(one.number for one in reject),
        retry_after_s=retry_after_s(sum(one.prefill_s for one in stays)) if reject else 0.0,
    )


def _done_s(queue: Sequence[Queued]) -> list[float]:
    return list(accumulate(one.prefill_s for one in queue))


def _urgency(one: Queued) -> tuple[float, int]:
    return one.slack_s, one.number
