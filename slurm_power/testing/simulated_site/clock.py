"""The time of the host the site runs on. Tests hand in a FakeClock instead."""

from __future__ import annotations

import time


class HostClock:
    def now_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()
