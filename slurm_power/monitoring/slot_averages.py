"""Readings to mean watts per slot. A slot that is mostly unknown has no mean; it is never zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotMean:
    """One slot of a measured series."""

    start_wall_s: float
    watts: float | None  # None: too little of the slot is known
    known_fraction: float


class SlotAverages:
    """Means over slots aligned to wall time, kept up to date reading by reading.

    Between two known readings at most `max_gap_s` apart the value is the line between them; elsewhere nothing
    is known. What is kept is one sum per slot, not the readings.
    """

    def __init__(self, *, slot_s: float, max_gap_s: float, min_known_fraction: float = 0.5) -> None:
        self._slot_s, self._max_gap_s, self._min_known_fraction = slot_s, max_gap_s, min_known_fraction
        self._joules: dict[int, float] = {}
        self._known_s: dict[int, float] = {}
        self._last_known: tuple[float, float] | None = None
        self._first: int | None = None
        self._last = 0

    def add(self, wall_s: float, watts: float | None) -> None:
        """Readings come in time order; None means "asked, not answered"."""
        self._last = math.floor(wall_s / self._slot_s)
        if self._first is None:
            self._first = self._last
        if watts is None:
            return
        if self._last_known is not None:
            self._add_line(self._last_known, (wall_s, watts))
        self._last_known = (wall_s, watts)

    def put(self, start_wall_s: float, watts: float) -> None:
        """A whole slot's mean, known from elsewhere; later than all that was added so far."""
        index = round(start_wall_s / self._slot_s)
        self._first = index if self._first is None else min(self._first, index)
        self._last = max(self._last, index)
        self._joules[index], self._known_s[index] = watts * self._slot_s, self._slot_s

    def mean(self, start_wall_s: float) -> float | None:
        return self._slot(round(start_wall_s / self._slot_s)).watts

    def forget_before(self, wall_s: float) -> None:
        """Leave out the slots that are over by then."""
        while self._first is not None and self._first < self._last and (self._first + 1) * self._slot_s <= wall_s:
            self._joules.pop(self._first, None)
            self._known_s.pop(self._first, None)
            self._first += 1

    def slots(self) -> list[SlotMean]:
        """From the first to the last reading, in order."""
        if self._first is None:
            return []
        return [self._slot(index) for index in range(self._first, self._last + 1)]

    def _add_line(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        (from_s, from_watts), (to_s, to_watts), slot_s = begin, end, self._slot_s
        if not 0 < to_s - from_s <= self._max_gap_s:
            return
        slope = (to_watts - from_watts) / (to_s - from_s)
        for index in range(math.floor(from_s / slot_s), math.ceil(to_s / slot_s)):
            begin_s, end_s = max(from_s, index * slot_s), min(to_s, (index + 1) * slot_s)
            middle_watts = from_watts + slope * ((begin_s + end_s) / 2 - from_s)
            self._joules[index] = self._joules.get(index, 0.0) + middle_watts * (end_s - begin_s)
            self._known_s[index] = self._known_s.get(index, 0.0) + end_s - begin_s

    def _slot(self, index: int) -> SlotMean:
        seconds = self._known_s.get(index, 0.0)
        fraction = min(1.0, seconds / self._slot_s)
        enough = seconds > 0 and fraction >= self._min_known_fraction
        return SlotMean(index * self._slot_s, self._joules[index] / seconds if enough else None, fraction)


def slot_averages(
    readings: Sequence[tuple[float, float | None]],
    *,
    slot_s: float,
    max_gap_s: float,
    min_known_fraction: float = 0.5,
) -> list[SlotMean]:
    """The slots of (wall_s, watts) readings in time order."""
    averages = SlotAverages(slot_s=slot_s, max_gap_s=max_gap_s, min_known_fraction=min_known_fraction)
    for wall_s, watts in readings:
        averages.add(wall_s, watts)
    return averages.slots()
