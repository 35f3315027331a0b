"""What one rank did in one step, and when: forward and backward passes, the optimiser, exchanges between ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

OnInstruction = Callable[[str, str], None]
"""Called with "forward", "backward" or "optimizer", and "begin" or "end": when it is launched, which on a GPU is before
it runs."""

BUSY = ("forward", "backward", "optimizer")
"""Instructions that compute; in all others a rank sends, receives or waits."""

STEP = "step"
"""The name while no instruction runs."""


@dataclass(frozen=True, slots=True)
class Span:
    """One instruction. Seconds since the step began on this rank."""

    name: str
    begin_s: float
    end_s: float
    chunk: int = 0
    """DualPipeV: which of the rank's two stages, 0 on the way out, 1 on the way back."""


class StepClock:
    """Marks instructions as they come. On a GPU the marks are events on its stream: kernels run after their launch."""

    def __init__(self, on_instruction: OnInstruction | None = None) -> None:
        self.on_instruction = on_instruction
        self.current = STEP
        """Name of the instruction that runs."""

        self._now: Callable[[], Any] = _event if torch.cuda.is_available() else time.perf_counter
        self._marks: list[tuple[str, int, Any, Any]] = []
        self._origin: Any = self._now()

    def restart(self) -> None:
        self._marks = []
        self._origin = self._now()

    @contextmanager
    def during(self, name: str, chunk: int = 0) -> Iterator[None]:
        """An instruction that raises leaves no mark, and its "end" is not told."""
        self._tell(name, "begin")
        begin, self.current = self._now(), name
        try:
            yield
        finally:
            self.current = STEP
        self._tell(name, "end")  # before the mark: who plays a slower GPU waits in here, and that is computing time
        self._marks.append((name, chunk, begin, self._now()))

    def spans(self) -> tuple[Span, ...]:
        """Since the last restart. Waits for the GPU."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return tuple(
            Span(name, _seconds(self._origin, begin), _seconds(self._origin, end), chunk)
            for name, chunk, begin, end in self._marks
        )

    def _tell(self, name: str, phase: str) -> None:
        if self.on_instruction is not None and name in BUSY:
            self.on_instruction(name, phase)


def busy_s(spans: tuple[Span, ...]) -> Mapping[str, float]:
    """Seconds of computation by instruction, the collectives inside a layer included."""
    seconds = dict.fromkeys(BUSY, 0.0)
    for span in spans:
        if span.name in seconds:
            seconds[span.name] += span.end_s - span.begin_s
    return seconds


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(begin: Any, end: Any) -> float:
    return float(end - begin) if isinstance(end, float) else float(begin.elapsed_time(end)) / 1000.0
