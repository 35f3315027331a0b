"""Carries outputs from the engine's thread to the server's event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from job_wrappers.serving.requests.output import ChoiceOutput

Hear = Callable[[ChoiceOutput], None]


class Mailbox:
    """One wake-up of the loop for all outputs that came meanwhile: an iteration makes one for each sequence."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Hear, ChoiceOutput]] = deque()
        self._rung = False

    def listener(self, hear: Hear) -> Hear:
        """To be called on the engine's thread; `hear` is called on the loop's."""

        def put(output: ChoiceOutput) -> None:
            self._waiting.append((hear, output))
            if not self._rung:
                self._rung = True
                with suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
                    self._loop.call_soon_threadsafe(self._deliver)

        return put

    def _deliver(self) -> None:
        self._rung = False  # first: what is put from here on rings again
        while self._waiting:
            hear, output = self._waiting.popleft()
            hear(output)
