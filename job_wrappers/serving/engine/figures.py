"""What was seen lately: latencies by class, tokens and joules per second. Quantiles are reckoned when asked for.

The engine's thread adds while others read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from job_wrappers.serving.requests.request import Priority

WINDOW_S = 60.0
RATE_S = 10.0
_MOST_KEPT = 8192


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of the last minute; None: nothing was seen."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    count: int


class Recent:
    """Values of the last `window_s`, the newest few thousand."""

    def __init__(self, now_s: Callable[[], float], window_s: float = WINDOW_S) -> None:
        self._now_s, self._window_s = now_s, window_s
        self._kept: deque[tuple[float, float]] = deque(maxlen=_MOST_KEPT)
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        with self._lock:
            self._kept.append((self._now_s(), value))

    def values(self) -> list[float]:
        since_s = self._now_s() - self._window_s
        with self._lock:
            while self._kept and self._kept[0][0] < since_s:
                self._kept.popleft()
            return [value for _, value in self._kept]

    def quantiles(self) -> Quantiles:
        values = sorted(self.values())
        return Quantiles(_quantile(values, 0.5), _quantile(values, 0.95), _quantile(values, 0.99), len(values))


@dataclass(frozen=True, slots=True)
class _Reading:
    at_s: float
    tokens: int
    joules: float | None


class Rates:
    """Tokens and joules over the last seconds, from running totals noted a few times a second."""

    _EVERY_S = 0.25

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._tokens = 0
        self._readings: deque[_Reading] = deque([_Reading(now_s(), 0, 0.0)])
        self._lock = threading.Lock()

    def add(self, tokens: int, joules: float | None) -> None:
        """`joules`: the total so far."""
        with self._lock:
            self._tokens += tokens
            if self._now_s() - self._readings[-1].at_s >= self._EVERY_S:
                self._note(joules)

    def now(self, joules: float | None) -> tuple[float, float | None, float | None]:
        """(tokens/s, joules/token, watts), idle time included. `joules` is not kept: it is newer than what `add` will
        say next, and a counter that runs backwards counts as reset."""
        now_s = self._now_s()
        with self._lock:
            readings = [*self._readings, _Reading(now_s, self._tokens, joules)]
        while len(readings) > 2 and now_s - readings[1].at_s >= RATE_S:
            readings.pop(0)
        first, last = readings[0], readings[-1]
        seconds, tokens = last.at_s - first.at_s, last.tokens - first.tokens
        known = [reading for reading in readings if reading.joules is not None]
        used = _risen(known)
        tokens_since = known[-1].tokens - known[0].tokens if known else 0
        known_s = known[-1].at_s - known[0].at_s if known else 0.0
        return (
            tokens / seconds if seconds > 0 else 0.0,
            used / tokens_since if used is not None and tokens_since else None,
            used / known_s if used is not None and known_s > 0 else None,
        )

    def _note(self, joules: float | None) -> None:
        now_s = self._now_s()
        self._readings.append(_Reading(now_s, self._tokens, joules))
        while len(self._readings) > 2 and now_s - self._readings[1].at_s >= RATE_S:
            self._readings.popleft()


class Figures:
    """Of all models together. Written by the engine's thread, read by anyone."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.first_token = {priority: Recent(now_s) for priority in Priority}
        self.between_tokens = {priority: Recent(now_s) for priority in Priority}
        self.whole = {priority: Recent(now_s) for priority in Priority}
        self.rates = Rates(now_s)
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.finished: dict[str, int] = {}
        """Requests by finish reason."""

    def on_tokens(self, *, prompt: int, generated: int, joules: float | None) -> None:
        self.prompt_tokens += prompt
        self.generated_tokens += generated
        self.rates.add(generated, joules)

    def on_finish(self, reason: str) -> None:
        self.finished[reason] = self.finished.get(reason, 0) + 1


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _risen(readings: Sequence[_Reading]) -> float | None:
    """None when nothing was read twice, or a counter was reset."""
    if len(readings) < 2 or any((b.joules or 0.0) < (a.joules or 0.0) for a, b in pairwise(readings)):
        return None
    return (readings[-1].joules or 0.0) - (readings[0].joules or 0.0)
