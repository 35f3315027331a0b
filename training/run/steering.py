"""Rank 0's decisions between steps: what control.json asks for, and the ramp's pauses."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from training.errors import ConfigError
from training.run.control import ControlFile, ControlRequest
from training.run.ramp import Ramp
from training.run.teller import Teller
from training.run.wishes import Wishes

SLICE_MS = 250
"""Longest wait at once: in between, all ranks ask again whether a signal came."""

RECENT_STEPS = 5


@dataclass(frozen=True, slots=True)
class _Change:
    """A new micro-batch that no whole step has been made with yet."""

    asked_at_unix_s: float
    before: int
    after: int
    step_s_before: float | None


class Steering:
    def __init__(
        self, control: ControlFile, ramp: Ramp | None, teller: Teller, *, allowed: Callable[[int], None]
    ) -> None:
        """`allowed`: raises ConfigError for a micro-batch that the plan cannot run."""
        self._control, self._ramp, self._teller, self._allowed = control, ramp, teller, allowed
        self._recent_s: deque[float] = deque(maxlen=RECENT_STEPS)
        self._change: _Change | None = None

    def decide(self, step: int, micro_sequences: int) -> Wishes:
        """`micro_sequences`: those of now."""
        request = self._control.poll()
        if isinstance(request, str):
            self._teller.event("control_ignored", request, step)
            request = None
        micro = self._micro(request, step, micro_sequences)
        if request is not None and request.ramp_held is not None:
            self._hold(request.ramp_held, step)
        asked_to_save = request is not None and request.checkpoint_now
        return Wishes(micro_sequences=micro, checkpoint=int(asked_to_save), pause_ms=self._pause_ms(step))

    def stepped(self, step: int, *, began_s: float, ended_s: float) -> None:
        """Monotonic times of the step that brought the run to `step`."""
        if self._ramp is not None:
            self._ramp.stepped(began_s=began_s, ended_s=ended_s)
        step_s = ended_s - began_s
        if self._change is not None:
            self._took_effect(self._change, step, step_s)
            self._change = None
        self._recent_s.append(step_s)

    def _micro(self, request: ControlRequest | None, step: int, now: int) -> int:
        wanted = None if request is None else request.micro_sequences
        if request is None or wanted is None:
            return 0
        if wanted == now:
            self._teller.event("micro_batch_refused", f"micro-batch is {now} already", step)
            return 0
        try:
            self._allowed(wanted)
        except ConfigError as cause:
            self._teller.event("micro_batch_refused", f"micro-batch stays {now}: {cause}", step)
            return 0
        before_s = fmean(self._recent_s) if self._recent_s else None
        self._change = _Change(request.asked_at_unix_s, now, wanted, before_s)
        self._recent_s.clear()
        self._teller.event("micro_batch_asked", f"micro-batch of {wanted} instead of {now} from the next step on", step)
        return wanted

    def _took_effect(self, change: _Change, step: int, step_s: float) -> None:
        effect_s = time.time() - change.asked_at_unix_s
        text = (
            f"micro-batch {change.before} -> {change.after}: first whole step {effect_s:.2f} s after it was asked for"
        )
        if change.step_s_before is not None:
            text += f", step {change.step_s_before:.3f} s -> {step_s:.3f} s"
        self._teller.event(
            "micro_batch_changed",
            text,
            step,
            micro_sequences_before=change.before,
            micro_sequences_after=change.after,
            asked_at_unix_s=change.asked_at_unix_s,
            effect_s=effect_s,
            step_s_before=change.step_s_before,
            step_s_after=step_s,
        )

    def _hold(self, held: bool, step: int) -> None:
        if self._ramp is None:
            self._teller.event("ramp_ended", "there is no ramp to hold: full power is allowed", step)
            return
        self._ramp.hold(held, now_s=time.monotonic())
        if held:
            self._teller.event("ramp_held", "power rises no further until the ramp is released", step)
        else:
            self._teller.event("ramp_released", "power rises on", step)

    def _pause_ms(self, step: int) -> int:
        if self._ramp is None:
            return 0
        now_s = time.monotonic()
        pause_s = self._ramp.pause_s(now_s)
        if pause_s == 0.0 and self._ramp.ended(now_s):
            self._ramp = None
            self._teller.event("ramp_ended", "full power is allowed: steps follow each other", step)
        return min(SLICE_MS, math.ceil(min(pause_s, 1.0) * 1000.0))
