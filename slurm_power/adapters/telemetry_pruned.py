"""What both stores' upkeeps share: what they did, and a wall clock that is not believed just after it was set."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

STEP_S = 3600.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """What an upkeep did."""

    deleted: int = 0  # points too old
    merged: int = 0  # points that went into one that stands for several

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(self.deleted + other.deleted, self.merged + other.merged)


class SteadyWall:
    """The wall clock, but nothing for an hour after it was set by more than that: a clock that jumps ahead must not
    make everything too old."""

    def __init__(self, wall_s: Callable[[], float], now_s: Callable[[], float]) -> None:
        self._wall_s, self._now_s = wall_s, now_s
        self._offset_s: float | None = None
        self._distrusted_until_s = -math.inf

    def wall_s(self) -> float | None:
        wall_s, now_s = self._wall_s(), self._now_s()
        offset_s = wall_s - now_s
        if self._offset_s is not None and abs(offset_s - self._offset_s) > STEP_S:
            log.warning("the wall clock was set by %+.0f s: no point is deleted for an hour", offset_s - self._offset_s)
            self._distrusted_until_s = now_s + STEP_S
        self._offset_s = offset_s
        return None if now_s < self._distrusted_until_s else wall_s
