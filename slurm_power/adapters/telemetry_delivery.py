"""Carries lines from the spool to the server: in order, again and again during an outage, around refused ones."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence

from slurm_power.adapters.telemetry_queue import Episode
from slurm_power.adapters.telemetry_spool import Spool
from slurm_power.errors import Unavailable

log = logging.getLogger(__name__)

BATCH_LINES = 10_000
FIRST_BACKOFF_S = 0.5


class Refused(Exception):
    """The server is well, but will never take this request: something in it is bad."""


Send = Callable[[Sequence[str]], None]
"""Deliver all of the lines (delivering one twice does no harm), or raise Unavailable or Refused."""


def send_around_refused(send: Send, lines: Sequence[str], set_aside: Callable[[str, str], None]) -> None:
    """Halve a refused request until the bad lines stand alone: servers differ in how they name them."""
    try:
        send(lines)
    except Refused as cause:
        if len(lines) == 1:
            set_aside(lines[0], str(cause))
            return
        middle = len(lines) // 2
        send_around_refused(send, lines[:middle], set_aside)
        send_around_refused(send, lines[middle:], set_aside)


class Delivery:
    """One thread. Waits longer after each failure, up to `backoff_max_s`; `hurry()` makes it try at once."""

    def __init__(self, spool: Spool, send: Send, *, name: str, backoff_max_s: float) -> None:
        self._spool = spool
        self._send = send
        self._name = name
        self._backoff_max_s = backoff_max_s
        self._backoff_s = FIRST_BACKOFF_S
        self._wake = threading.Event()
        self._closing = False
        self._refused = 0
        self._episode = Episode(name)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def hurry(self) -> None:
        self._wake.set()

    def refused(self) -> int:
        """Lines the server refused, since start."""
        return self._refused

    def close(self, timeout_s: float) -> None:
        """One last try; what is left stays on disk."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def send_around_refused(self, lines: Sequence[str]) -> None:
        send_around_refused(self._send, lines, self._set_aside)

    def _run(self) -> None:
        wait_s: float | None = 0.0
        closing = False
        while not closing:
            self._wake.wait(wait_s)
            self._wake.clear()
            closing = self._closing  # read before the last try, so that nothing comes in after it
            wait_s = self._deliver_all()

    def _deliver_all(self) -> float | None:
        """How long to wait before the next try; None: until there is something to do."""
        try:
            while batches := self._spool.oldest(BATCH_LINES):
                self.send_around_refused([line for batch in batches for line in batch.lines])
                self._spool.remove(batches)
                self._backoff_s = FIRST_BACKOFF_S
                self._episode.over()
        except Unavailable as cause:
            self._episode.wrong(cause, "points wait on disk")
            return self._next_backoff_s()
        return None

    def _next_backoff_s(self) -> float:
        """Jittered, so that all nodes do not come back in the same second."""
        wait_s = min(self._backoff_s, self._backoff_max_s)
        self._backoff_s = min(2 * self._backoff_s, self._backoff_max_s)
        return wait_s * random.uniform(0.5, 1.0)

    def _set_aside(self, line: str, reason: str) -> None:
        if not self._refused:
            log.error("%s: a point is refused and set aside: %s: %.200s", self._name, reason, line)
        self._spool.set_aside(line, reason)
        self._refused += 1
