"""A clock that stands still until it is told to move."""

from __future__ import annotations


class FakeClock:
    def __init__(self, *, now_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._now_s = now_s
        self._wall_s = wall_s

    def now_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._wall_s

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now_s += seconds
        self._wall_s += seconds

    def step_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._wall_s += seconds
