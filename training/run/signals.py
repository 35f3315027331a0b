"""Notes SIGUSR1 and SIGTERM, and when they came. Nothing else: the loop looks between steps."""

from __future__ import annotations

import signal
import socket
import threading
import time
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Protocol

STOPPING = (signal.SIGUSR1, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Received:
    name: str
    at_s: float
    """Of the monotonic clock."""


class SignalSource(Protocol):
    def received(self) -> Received | None:
        """The first signal that came; None as long as there was none."""
        ...


class NoSignals:
    def received(self) -> Received | None:
        return None


class PowerSignals:
    """A context: inside it, the signals do nothing but be noted. Enter it in the main thread.

    Python runs handlers between bytecodes only, so one that comes in the middle of a collective would be seen late. The
    interpreter's wake-up file (signal.set_wakeup_fd) is written at once, and a thread notes the time.
    """

    def __init__(self) -> None:
        self._received: Received | None = None
        self._reader, self._writer = socket.socketpair()
        self._found: dict[signal.Signals, Any] = {}
        self._found_wakeup = -1

    def __enter__(self) -> PowerSignals:
        self._writer.setblocking(False)
        threading.Thread(target=self._note, name="signals", daemon=True).start()
        self._found_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._found = {number: signal.signal(number, _nothing) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._found.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._found_wakeup)
        self._writer.close()

    def received(self) -> Received | None:
        return self._received

    def _note(self) -> None:
        while data := self._reader.recv(64):
            for number in data:
                if number in STOPPING and self._received is None:
                    self._received = Received(signal.Signals(number).name, time.monotonic())
        self._reader.close()


def _nothing(number: int, frame: FrameType | None) -> None:
    return None
