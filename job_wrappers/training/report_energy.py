"""What the job's energy readings say about a span of time. Pure; unknown is None."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from job_wrappers.training.attempts import Trace
from training.run.listener import StepRecord

SHORTEST_S = 2.0
"""Counters are read about once a second: over less than this, a mean power says nothing."""


def joules_at(trace: Trace, at_unix_s: float) -> float | None:
    """Between two readings on the line between them; None outside the trace."""
    if not trace or not trace[0][0] <= at_unix_s <= trace[-1][0]:
        return None
    after = bisect.bisect_left(trace, at_unix_s, key=lambda row: row[0])
    if after == 0:
        return trace[0][1]
    (from_s, from_joules), (to_s, to_joules) = trace[after - 1], trace[after]
    share = (at_unix_s - from_s) / (to_s - from_s) if to_s > from_s else 1.0
    return from_joules + share * (to_joules - from_joules)


def joules_between(trace: Trace, from_unix_s: float, to_unix_s: float) -> float | None:
    """None when the readings do not cover all of it."""
    first, last = joules_at(trace, from_unix_s), joules_at(trace, to_unix_s)
    return None if first is None or last is None else last - first


def mean_watts(trace: Trace, from_unix_s: float, to_unix_s: float) -> float | None:
    """None too for a span shorter than SHORTEST_S."""
    span_s = to_unix_s - from_unix_s
    joules = joules_between(trace, from_unix_s, to_unix_s)
    return None if joules is None or span_s < SHORTEST_S else joules / span_s


def watts_curve(trace: Trace, *, points: int) -> tuple[list[float], list[float]]:
    """Unix times and the mean power between each and the one before; the first has the second's.

    About `points` of them, at least a second apart: a counter that stood still for a moment is no zero power.
    """
    at_s: list[float] = []
    watts: list[float] = []
    (last_s, last_joules), shortest_s = trace[0], max(1.0, (trace[-1][0] - trace[0][0]) / points)
    for now_s, joules in trace[1:]:
        if now_s - last_s >= shortest_s or now_s == trace[-1][0] > last_s:
            at_s.append(now_s)
            watts.append((joules - last_joules) / (now_s - last_s))
            last_s, last_joules = now_s, joules
    return ([trace[0][0], *at_s], [watts[0], *watts]) if watts else ([], [])


def joules_per_token_curve(trace: Trace, steps: Sequence[StepRecord], *, window_s: float) -> list[tuple[float, float]]:
    """(Unix time, J/token) over groups of steps that last at least `window_s`. Not every step needs to be told."""
    curve: list[tuple[float, float]] = []
    since: StepRecord | None = None
    for step in steps:
        joules = None if since is None else joules_between(trace, since.ended_at_unix_s, step.ended_at_unix_s)
        if since is None or joules is None:
            since = step
        elif step.ended_at_unix_s - since.ended_at_unix_s >= window_s:
            curve.append((step.ended_at_unix_s, joules / (step.tokens * (step.step - since.step))))
            since = step
    return curve
