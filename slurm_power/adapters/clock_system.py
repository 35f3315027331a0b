"""The clocks of this host."""

from __future__ import annotations

import time


class SystemClock:
    def now_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()
