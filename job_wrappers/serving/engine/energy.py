"""Whose joules: the counters' rise is dealt out over the requests by the tokens that were computed for each.

What rises while nothing is computed is nobody's; so requests + idle = counters, always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

SETTLE_S = 0.1
"""How often counters are read under load. NVML's own counters move about as often."""


class EnergyShares:
    """`read_joules` says None where no counter can be read: then every share is None from then on."""

    def __init__(self, read_joules: Callable[[], float | None], now_s: Callable[[], float]) -> None:
        self._read, self._now_s = read_joules, now_s
        self._last_joules = read_joules()
        self._read_at_s = now_s()
        self._first_joules = self._last_joules
        self._pending: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._was_idle = True
        self.idle_joules = 0.0

    @property
    def known(self) -> bool:
        return self._last_joules is not None

    @property
    def total_joules(self) -> float | None:
        """What the counters rose since the start, as far as it is dealt out."""
        if self._last_joules is None or self._first_joules is None:
            return None
        return self._last_joules - self._first_joules

    def read_total_joules(self) -> float | None:
        """What the counters rose since the start, read now; also while nothing is computed. From any thread."""
        found = self._read() if self.known else None
        return None if found is None or self._first_joules is None else found - self._first_joules

    def begin(self) -> None:
        """Before an iteration; cheap unless nothing was computed before it."""
        if self._was_idle:
            self._settle()
            self._was_idle = False

    def add(self, tokens: Mapping[str, int]) -> None:
        """After an iteration: the tokens computed for each request."""
        for request_id, count in tokens.items():
            self._pending[request_id] = self._pending.get(request_id, 0.0) + count
        if self._now_s() - self._read_at_s >= SETTLE_S:
            self._settle()

    def pause(self) -> None:
        """Nothing is left to compute."""
        if not self._was_idle:
            self._settle()
            self._was_idle = True

    def take(self, request_id: str) -> float | None:
        """The whole share of a request that is over. None: unknown."""
        if request_id in self._pending:
            self._settle()
        share = self._shares.pop(request_id, 0.0)
        return share if self.known else None

    def _settle(self) -> None:
        """Deal out what the counters rose since the last reading."""
        found = self._read() if self.known else None
        self._read_at_s = self._now_s()
        if found is None or self._last_joules is None or found < self._last_joules:  # a counter was reset
            self._last_joules = None
            self._shares.clear()
            self._pending.clear()
            return
        risen, self._last_joules = found - self._last_joules, found
        weight = sum(self._pending.values())
        if weight == 0:
            self.idle_joules += risen
        for request_id, count in self._pending.items():
            self._shares[request_id] = self._shares.get(request_id, 0.0) + risen * count / weight
        self._pending.clear()
