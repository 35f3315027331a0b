"""Time. Ages and deadlines use the monotonic clock; plans, tariffs and reservations use wall time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now_s(self) -> float:
        """Monotonic seconds of this host; never compared between hosts."""
        ...

    def wall_s(self) -> float:
        """Seconds since the Unix epoch."""
        ...
