"""Ends a process that makes no progress: a dead peer leaves the others in a collective for ever."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from training.errors import Unavailable

SAY_S = 5.0
"""How long saying why may take: stderr itself may hang."""

LAST_RESORT_FRACTION = 0.5
"""A thread of Python waits in vain if the main thread holds the interpreter inside C. faulthandler's own thread does
not; so much later it ends the process with a traceback and exit code 1."""

_STDERR = 2
"""By number: sys.stderr may be None, or a stream without a file."""

Say = Callable[[str], None]


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Watchdog:
    """A context around everything that may hang; `progress` pushes the end away."""

    def __init__(self, limit_s: float, *, rank: int, say: Say) -> None:
        self._limit_s, self._rank, self._say = limit_s, rank, say
        self._what, self._since_s = "start", time.monotonic()
        self._stopped = threading.Event()

    def __enter__(self) -> Watchdog:
        self.progress("start")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        faulthandler.cancel_dump_traceback_later()

    def progress(self, what: str) -> None:
        """Something was done; `what` begins now."""
        self._what, self._since_s = what, time.monotonic()
        last_s = self._limit_s * (1.0 + LAST_RESORT_FRACTION) + 2.0 * SAY_S
        faulthandler.dump_traceback_later(last_s, exit=True, file=_STDERR)

    def doing(self) -> str:
        """What began last."""
        return self._what

    def _watch(self) -> None:
        while not self._stopped.wait(self._left_s()):
            if self._left_s() <= 0.0:
                self._end()

    def _left_s(self) -> float:
        return max(0.0, self._since_s + self._limit_s - time.monotonic())

    def _end(self) -> None:
        line = f"rank {self._rank}: no progress for {self._limit_s:g} s in {self._what}: a peer is gone or hangs"
        speaker = threading.Thread(target=self._say, args=(line,), daemon=True)
        speaker.start()
        speaker.join(SAY_S)
        flusher = threading.Thread(target=_flush, daemon=True)
        flusher.start()
        flusher.join(SAY_S)
        os._exit(Unavailable.exit_code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # closed
