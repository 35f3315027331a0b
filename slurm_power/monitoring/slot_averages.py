"""Readings to mean watts per slot. A slot that is mostly unknown has no mean; it is never zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class SlotMean:
    """One slot of a measured series."""

    start_wall_s: float
    watts: float | None  # None: too little of the slot is known
    known_fraction: float


def slot_averages(
    readings: Sequence[tuple[float, float | None]],
    *,
    slot_s: float,
    max_gap_s: float,
    min_known_fraction: float = 0.5,
) -> list[SlotMean]:
    """Means over slots aligned to wall time, from the first to the last reading, in order.

    `readings` are (wall_s, watts) in time order; None means "asked, not answered". Between two readings
    at most `max_gap_s` apart the value is the line between them; elsewhere nothing is known.
    """
    joules: dict[int, float] = {}
    known_s: dict[int, float] = {}
    known = [(wall_s, watts) for wall_s, watts in readings if watts is not None]
    for (from_s, from_watts), (to_s, to_watts) in pairwise(known):
        if not 0 < to_s - from_s <= max_gap_s:
            continue
        slope = (to_watts - from_watts) / (to_s - from_s)
        for index in range(math.floor(from_s / slot_s), math.ceil(to_s / slot_s)):
            begin_s, end_s = max(from_s, index * slot_s), min(to_s, (index + 1) * slot_s)
            middle_watts = from_watts + slope * ((begin_s + end_s) / 2 - from_s)
            joules[index] = joules.get(index, 0.0) + middle_watts * (end_s - begin_s)
            known_s[index] = known_s.get(index, 0.0) + end_s - begin_s
    if not readings:
        return []
    first, last = math.floor(readings[0][0] / slot_s), math.floor(readings[-1][0] / slot_s)
    return [_slot(index, slot_s, joules, known_s, min_known_fraction) for index in range(first, last + 1)]


def _slot(
    index: int, slot_s: float, joules: dict[int, float], known_s: dict[int, float], min_known_fraction: float
) -> SlotMean:
    seconds = known_s.get(index, 0.0)
    fraction = min(1.0, seconds / slot_s)
    watts = joules[index] / seconds if seconds > 0 and fraction >= min_known_fraction else None
    return SlotMean(index * slot_s, watts, fraction)
