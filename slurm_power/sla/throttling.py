"""Throttling: how often and how long a GPU was held back, by reason, and who answers for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slurm_power.sla.histogram import share
from slurm_power.sla.intervals import COUNTERS, Intervals, Mask
from slurm_power.sla.whose import FAULTS, REASONS, SW_POWER_CAP, Whose


@dataclass(frozen=True, slots=True)
class Held:
    seconds: float
    episodes: int


@dataclass(frozen=True, slots=True)
class ThrottlingFigures:
    known_s: float
    reasons: Mapping[str, Held]
    """As the board names them."""

    power_cap_of: Mapping[str, Held]
    """The software power cap by whose limit it was: board, operator, user, site."""

    infrastructure_s: float
    """Heat, power brake, hardware slowdown, or a limit that neither we nor the user asked for."""

    power_counter_s: float | None
    """What the board's own counters say for the same time; they also see what lies between two readings."""

    thermal_counter_s: float | None

    @property
    def infrastructure_fraction(self) -> float | None:
        return share(self.infrastructure_s, self.known_s)

    def policy_s(self, who: str) -> float:
        return self.power_cap_of[who].seconds


class ThrottlingTally:
    def __init__(self) -> None:
        self._known_s = 0.0
        self._infrastructure_s = 0.0
        names = [*REASONS, *(f"cap_{who.name}" for who in Whose)]
        self._seconds = dict.fromkeys(names, 0.0)
        self._episodes = dict.fromkeys(names, 0)
        self._before = dict.fromkeys(names, False)
        self._counters: dict[str, float | None] = dict.fromkeys(COUNTERS)

    def add(self, intervals: Intervals) -> None:
        told = intervals.samples["throttle_reasons"]
        known = (told >= 0) & (intervals.seconds > 0)
        reasons = np.where(known, told, 0)
        self._known_s += float(intervals.seconds[known].sum())
        capped = (reasons & SW_POWER_CAP) != 0
        for name, bit in REASONS.items():
            self._count(name, (reasons & bit) != 0, intervals)
        for who in Whose:
            self._count(f"cap_{who.name}", capped & (intervals.whose == who), intervals)
        at_fault = ((reasons & FAULTS) != 0) | (capped & (intervals.whose == Whose.SITE))
        self._infrastructure_s += float(intervals.seconds[at_fault].sum())
        for name in self._counters:
            self._count_counter(name, intervals)

    def figures(self) -> ThrottlingFigures:
        def held(name: str) -> Held:
            return Held(self._seconds[name], self._episodes[name])

        return ThrottlingFigures(
            known_s=self._known_s,
            reasons={name: held(name) for name in REASONS},
            power_cap_of={who.name.lower(): held(f"cap_{who.name}") for who in Whose},
            infrastructure_s=self._infrastructure_s,
            power_counter_s=self._counters["power_violation_s"],
            thermal_counter_s=self._counters["thermal_violation_s"],
        )

    def _count(self, name: str, on: Mask, intervals: Intervals) -> None:
        self._seconds[name] += float(intervals.seconds[on].sum())
        before = np.concatenate([[self._before[name]], on[:-1]])
        self._episodes[name] += int((on & (~before | intervals.first)).sum())
        self._before[name] = bool(on[-1])

    def _count_counter(self, name: str, intervals: Intervals) -> None:
        """A counter that falls was reset: that step says nothing. What it gained during a gap is not counted."""
        gained = intervals.gained[name]
        use = np.isfinite(gained) & (intervals.seconds > 0)
        if use.any():
            self._counters[name] = (self._counters[name] or 0.0) + float(np.maximum(gained[use], 0.0).sum())
