"""The metering interval: what the utility's meter averages, clocked to wall time. Pure transitions.

Between two readings at most `max_gap_s` apart the import is the straight line between them; a longer
silence is unknown, and how much of the interval is unknown is always told, never guessed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, slots=True)
class ClosedInterval:
    """One finished metering interval."""

    start_wall_s: float
    length_s: float
    joules: float  # imported in the known part
    known_s: float

    @property
    def average_watts(self) -> float | None:
        """Mean import of the known part; None if nothing is known."""
        return self.joules / self.known_s if self.known_s > 0 else None

    @property
    def unknown_s(self) -> float:
        return max(0.0, self.length_s - self.known_s)


@dataclass(frozen=True, slots=True)
class MeteringInterval:
    """The open interval. Frozen: `observe` gives the next state. Plain numbers, so it survives a restart."""

    length_s: float
    max_gap_s: float
    start_wall_s: float
    joules: float = 0.0
    known_s: float = 0.0
    last_wall_s: float | None = None
    last_watts: float | None = None

    @classmethod
    def starting(cls, *, length_s: float, max_gap_s: float, wall_s: float) -> MeteringInterval:
        """The interval that `wall_s` falls into; what was before `wall_s` is unknown."""
        return cls(length_s=length_s, max_gap_s=max_gap_s, start_wall_s=_floor(wall_s, length_s))

    @classmethod
    def from_record(cls, record: Mapping[str, float | int | str | bool | None]) -> MeteringInterval:
        """Read back `to_record`. Raise ValueError for anything that is not such a record."""
        try:
            numbers = {key: None if record[key] is None else float(record[key] or 0.0) for key in _KEYS}
        except (KeyError, TypeError) as cause:
            raise ValueError(f"not a metering interval: {dict(record)}") from cause
        needed = {key: value for key, value in numbers.items() if value is not None}
        return cls(**needed)

    def to_record(self) -> dict[str, float | None]:
        return asdict(self)

    @property
    def end_wall_s(self) -> float:
        return self.start_wall_s + self.length_s

    @property
    def average_watts(self) -> float | None:
        """Mean import of the known part so far; None if nothing is known."""
        return self.joules / self.known_s if self.known_s > 0 else None

    def elapsed_s(self, wall_s: float) -> float:
        return min(self.length_s, max(0.0, wall_s - self.start_wall_s))

    def remaining_s(self, wall_s: float) -> float:
        return self.length_s - self.elapsed_s(wall_s)

    def unknown_s(self, wall_s: float) -> float:
        """Seconds of the elapsed part for which no reading speaks."""
        return max(0.0, self.elapsed_s(wall_s) - self.known_s)

    def observe(self, *, watts: float | None, wall_s: float) -> tuple[MeteringInterval, tuple[ClosedInterval, ...]]:
        """The state after one meter reading (None: the meter was silent), and the intervals it closed.

        A clock that steps back restarts the line between readings; nothing is integrated twice.
        """
        if self.last_wall_s is not None and wall_s < self.last_wall_s:
            return replace(self, last_wall_s=wall_s, last_watts=watts), ()
        state, closed = self, []
        while wall_s >= state.end_wall_s:
            boundary = state.end_wall_s
            at_boundary = state._on_line(watts, wall_s, boundary)
            full = state._integrated(at_boundary, boundary)
            closed.append(ClosedInterval(state.start_wall_s, state.length_s, full.joules, full.known_s))
            opened = MeteringInterval(state.length_s, state.max_gap_s, boundary)
            if at_boundary is not None:
                opened = replace(opened, last_wall_s=boundary, last_watts=at_boundary)
            elif wall_s - boundary >= state.length_s:
                # Nothing is known of the intervals that were slept through: one jump, no loop over years.
                opened = replace(opened, start_wall_s=_floor(wall_s, state.length_s))
            state = opened
        return state._integrated(watts, wall_s), tuple(closed)

    def _on_line(self, watts: float | None, wall_s: float, at_wall_s: float) -> float | None:
        """Import at `at_wall_s` on the line from the last reading to this one; None across a gap."""
        if watts is None or self.last_watts is None or self.last_wall_s is None:
            return None
        span_s = wall_s - self.last_wall_s
        if span_s > self.max_gap_s:
            return None
        share = (at_wall_s - self.last_wall_s) / span_s if span_s > 0 else 1.0
        return self.last_watts + share * (watts - self.last_watts)

    def _integrated(self, watts: float | None, wall_s: float) -> MeteringInterval:
        if watts is None:
            return self
        if self.last_watts is None or self.last_wall_s is None or wall_s - self.last_wall_s > self.max_gap_s:
            return replace(self, last_wall_s=wall_s, last_watts=watts)
        span_s = wall_s - self.last_wall_s
        return replace(
            self,
            joules=self.joules + span_s * (self.last_watts + watts) / 2,
            known_s=self.known_s + span_s,
            last_wall_s=wall_s,
            last_watts=watts,
        )


_KEYS = ("length_s", "max_gap_s", "start_wall_s", "joules", "known_s", "last_wall_s", "last_watts")


def _floor(wall_s: float, length_s: float) -> float:
    return math.floor(wall_s / length_s) * length_s
