"""Earliest and latest times in a schedule's graph: how much longer an instruction may take. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from training.planning.precedence import Precedence


def earliest_ends_s(graph: Precedence, durations_s: Sequence[float]) -> list[float]:
    ends_s: list[float] = []
    for after, duration_s in zip(graph.after, durations_s, strict=True):
        ends_s.append(max((ends_s[earlier] for earlier in after), default=0.0) + duration_s)
    return ends_s


def length_s(graph: Precedence, durations_s: Sequence[float]) -> float:
    return max(earliest_ends_s(graph, durations_s))


def latest_ends_s(graph: Precedence, durations_s: Sequence[float], deadline_s: float) -> list[float]:
    """When each must be over, that all are by `deadline_s`. Some lie before their earliest end if that cannot be."""
    ends_s = [deadline_s] * len(durations_s)
    for number in reversed(range(len(durations_s))):
        start_s = ends_s[number] - durations_s[number]
        for earlier in graph.after[number]:
            ends_s[earlier] = min(ends_s[earlier], start_s)
    return ends_s
