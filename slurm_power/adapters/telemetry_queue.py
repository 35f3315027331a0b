"""Takes points at once and hands them to a slow or failing sink from a thread of its own.

In memory only: what is lost when the process is killed is what came in since the last hand-over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_rules import storable, storable_as_is
from slurm_power.ports.telemetry_store import Point

log = logging.getLogger(__name__)

Sink = Callable[[Sequence[Point]], None]
"""Keep all of the points, or raise Unavailable."""

BATCH_POINTS = 10_000
RETRY_S = 1.0


class Episode:
    """Says once that something is wrong, and once that it is over."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._since_s: float | None = None

    def wrong(self, reason: object, consequence: str) -> None:
        if self._since_s is None:
            self._since_s = time.monotonic()
            log.warning("%s: %s; %s", self._name, reason, consequence)

    def over(self) -> None:
        if self._since_s is not None:
            log.warning("%s: works again after %.0f s", self._name, time.monotonic() - self._since_s)
            self._since_s = None


class WriteBehind:
    """Bounded: above `max_points` the oldest points are dropped and counted. The thread starts with the first point."""

    def __init__(
        self,
        sink: Sink,
        *,
        name: str,
        flush_period_s: float,
        max_points: int,
        batch_points: int = BATCH_POINTS,
        after_flush: Callable[[], None] = lambda: None,
    ) -> None:
        self._sink = sink
        self._after_flush = after_flush
        self._name = name
        self._flush_period_s = flush_period_s
        self._max_points = max_points
        self._batch_points = batch_points
        self._changed = threading.Condition()
        self._waiting: deque[Point] = deque()
        self._in_hand: list[Point] = []
        self._dropped = 0
        self._unusable = 0
        self._hurry = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._sink_episode = Episode(name)
        self._full_episode = Episode(name)

    def add(self, points: Sequence[Point]) -> None:
        kept = [kept for point in points if (kept := point if storable_as_is(point) else storable(point)) is not None]
        with self._changed:
            self._count_unusable(len(points) - len(kept))
            self._waiting.extend(kept)
            self._trim()
            if kept and self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def pending(self) -> int:
        with self._changed:
            return len(self._waiting) + len(self._in_hand)

    def dropped(self) -> int:
        with self._changed:
            return self._dropped + self._unusable

    def flush(self, timeout_s: float) -> bool:
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._waiting and not self._in_hand, timeout_s)

    def close(self, timeout_s: float) -> None:
        """One last try; what cannot be kept is dropped, counted and said."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._changed:
            lost = len(self._waiting) + len(self._in_hand)
            self._dropped += lost
            self._waiting.clear()
        if lost:
            log.error("%s: closed with %d points that could not be kept", self._name, lost)

    def _run(self) -> None:
        wait_s = self._flush_period_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._hurry or self._closing, wait_s)
                self._hurry = False
                closing = self._closing
            done = self._hand_over()
            wait_s = self._flush_period_s if done else min(self._flush_period_s, RETRY_S)
            if closing:
                return

    def _hand_over(self) -> bool:
        """False when the sink cannot take points now."""
        while batch := self._take():
            try:
                self._sink(batch)
            except Unavailable as cause:
                self._put_back(batch)
                self._sink_episode.wrong(cause, f"points wait in memory, at most {self._max_points}")
                return False
            self._kept()
        self._after_flush()
        return True

    def _take(self) -> list[Point]:
        with self._changed:
            self._in_hand = [self._waiting.popleft() for _ in range(min(self._batch_points, len(self._waiting)))]
            return self._in_hand

    def _kept(self) -> None:
        self._sink_episode.over()
        self._full_episode.over()
        with self._changed:
            self._in_hand = []
            self._changed.notify_all()

    def _put_back(self, batch: Sequence[Point]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(batch))
            self._in_hand = []
            self._trim()

    def _trim(self) -> None:
        while len(self._waiting) + len(self._in_hand) > self._max_points and self._waiting:
            self._waiting.popleft()
            self._dropped += 1
            self._full_episode.wrong("too many points wait", "the oldest are dropped")

    def _count_unusable(self, count: int) -> None:
        if count and not self._unusable:
            log.warning("%s: %d points without a usable name, time or value are not kept", self._name, count)
        self._unusable += count
