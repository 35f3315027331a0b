"""How fast requests end: what a client that is turned away is told to wait. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

_WINDOW_S = 30.0
_MOST_S = 60.0


class CompletionRate:
    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._ended: deque[float] = deque(maxlen=1024)

    def note(self) -> None:
        self._ended.append(self._now_s())

    def time_for_s(self, requests: int) -> float:
        """Whole seconds until so many have ended at the rate of the last half minute; a minute at most."""
        now_s = self._now_s()
        recent = sum(at_s > now_s - _WINDOW_S for at_s in self._ended)
        seconds = requests * _WINDOW_S / recent if recent else _MOST_S
        return float(min(_MOST_S, max(1, math.ceil(seconds))))
