"""Limits how fast a job's power rises after a start: it pauses between steps. Pure.

A step draws `full_watts`, a pause `idle_watts`. What a step draws above idle is a debt in joules, paid off by what is
allowed meanwhile; the next step begins when it is paid. Time lost to anything else is not made up for by a burst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RampLimit:
    """All watts are those of the whole job. Times count from the begin of the first step."""

    watts_per_s: float
    idle_watts: float
    full_watts: float

    @property
    def swing_watts(self) -> float:
        return self.full_watts - self.idle_watts

    @property
    def length_s(self) -> float:
        """From then on steps follow each other without a pause."""
        return self.swing_watts / self.watts_per_s

    def above_idle_watts(self, at_s: float) -> float:
        """What is allowed."""
        return min(self.swing_watts, self.watts_per_s * max(0.0, at_s))

    def above_idle_joules(self, from_s: float, to_s: float) -> float:
        """What is allowed from one time to another."""
        begin_s, end_s = max(0.0, from_s), min(to_s, self.length_s)
        rising = 0.5 * self.watts_per_s * max(0.0, end_s**2 - begin_s**2)
        return rising + self.swing_watts * max(0.0, to_s - max(from_s, self.length_s))

    def seconds_for(self, joules: float, *, from_s: float) -> float:
        """How long from `from_s` until so much is allowed."""
        begin_s = max(0.0, from_s)
        until_full_joules = self.above_idle_joules(begin_s, self.length_s)
        if joules > until_full_joules:
            return max(0.0, self.length_s - begin_s) + (joules - until_full_joules) / self.swing_watts
        return math.sqrt(begin_s**2 + 2.0 * joules / self.watts_per_s) - begin_s


class Ramp:
    """One start's ramp: where it stands, and when the next step may begin. Times are of any one monotonic clock."""

    def __init__(self, limit: RampLimit) -> None:
        self.limit = limit
        self.held = False
        self._zero_s: float | None = None  # when the first step began, later by as long as the ramp was held
        self._debt_joules = 0.0
        self._paid_until_s = 0.0

    def ramp_s(self, now_s: float) -> float:
        """Time on the ramp; it stands still while the ramp is held."""
        self._pay(now_s)
        return 0.0 if self._zero_s is None else now_s - self._zero_s

    def ended(self, now_s: float) -> bool:
        return not self.held and self.ramp_s(now_s) >= self.limit.length_s

    def hold(self, held: bool, *, now_s: float) -> None:
        """Keep power at what is allowed now; or let it rise on."""
        self._pay(now_s)
        self.held = held

    def stepped(self, *, began_s: float, ended_s: float) -> None:
        """A step has been made."""
        if self._zero_s is None:
            self._zero_s = self._paid_until_s = began_s
        self._pay(began_s)
        self._debt_joules += self.limit.swing_watts * (ended_s - began_s)
        self._pay(ended_s)

    def pause_s(self, now_s: float) -> float:
        """How long to wait before the next step; 0: begin. Infinite while the ramp is held where it began."""
        ramp_s = self.ramp_s(now_s)
        if self._debt_joules <= 0.0:
            return 0.0
        if not self.held:
            return self.limit.seconds_for(self._debt_joules, from_s=ramp_s)
        allowed_watts = self.limit.above_idle_watts(ramp_s)
        return self._debt_joules / allowed_watts if allowed_watts > 0.0 else math.inf

    def _pay(self, now_s: float) -> None:
        passed_s = now_s - self._paid_until_s
        if self._zero_s is None or passed_s <= 0.0:
            return
        if self.held:
            self._zero_s += passed_s
            paid_joules = self.limit.above_idle_watts(now_s - self._zero_s) * passed_s
        else:
            paid_joules = self.limit.above_idle_joules(self._paid_until_s - self._zero_s, now_s - self._zero_s)
        self._debt_joules = max(0.0, self._debt_joules - paid_joules)
        self._paid_until_s = now_s
