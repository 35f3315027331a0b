"""The site's own time: the host's clocks, or one that a test moves by hand."""

from __future__ import annotations

import time


class HostClock:
    def now_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()


class ManualClock:
    """Stands still until told to move."""

    def __init__(self, *, now_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._now_s = now_s
        self._wall_s = wall_s

    def now_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._wall_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
        self._wall_s += seconds
