"""Runs asynchronous I/O from synchronous code: one deadline over a whole reading, and connections that live on.

Libraries bound each single wait; a device that drips bytes or answers in many steps would stretch that without end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineLoop:
    """An event loop of its own. Safe between threads: one caller after the other."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T], *, timeout_s: float) -> T:
        """Raise TimeoutError when `work` is not done in time; it is cancelled then."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
            return self._loop.run_until_complete(asyncio.wait_for(work, timeout_s))

    def close(self) -> None:
        with self._lock:
            if self._loop is not None:
                self._loop.close()
                self._loop = None
