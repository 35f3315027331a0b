"""What a run tells whoever listens: facts once, a record a step, events. Listeners never change the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What holds for the whole run."""

    run_folder: str
    model_family: str
    parameters: int
    policy: str
    plan: Mapping[str, Any]
    """The ParallelPlan's fields by name."""

    world_size: int
    steps: int
    global_sequences: int
    sequence_length_tokens: int
    flops_per_token: float | None
    """Floating-point operations of the model per trained token, forward and backward."""

    peak_flops_per_s: float | None
    """Of all GPUs together, as stated in the config; None: not stated, so no utilisation is reported."""

    resumed_from_step: int | None
    began_at_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimiser step, seen from rank 0; sums and means are over all ranks."""

    step: int
    """Steps done, this one included: the first step of a run is 1."""

    loss: float
    held_out_loss: float | None = None
    learning_rate: float
    gradient_norm: float | None
    tokens: int
    step_s: float
    """From the first forward pass to the end of the optimiser; without the ramp's pause, saves and evaluation."""

    pause_s: float = 0.0
    """Inserted before this step by the ramp limit."""

    tokens_per_s: float
    """Tokens of this step over step_s and pause_s."""

    busy_fraction_by_stage: tuple[float, ...]
    """Share of step_s in which a rank of the stage computed; mean over the stage's ranks."""

    bytes_by_axis: Mapping[str, float]
    """Payload handed to collectives in this step, all ranks together."""

    micro_sequences: int
    model_flops_utilisation: float | None
    """Against peak_flops_per_s of RunFacts; None when no peak was stated."""

    sequences_consumed: int
    ended_at_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Something worth a line."""

    kind: str
    """One of EVENT_KINDS."""

    text: str
    """One line for a person."""

    step: int
    at_unix_s: float
    facts: Mapping[str, Any] = field(default_factory=dict)


EVENT_KINDS = (
    "resumed",
    "checkpoint_saved",
    "checkpoint_failed",
    "checkpoint_skipped",
    "checkpoint_fallback",
    "power_signal",
    "micro_batch_asked",
    "micro_batch_changed",
    "micro_batch_refused",
    "control_ignored",
    "ramp_held",
    "ramp_released",
    "ramp_ended",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended when it ended in order; anything else is raised as a TrainingError."""

    exit_code: int
    """0: all steps done; the config's requeue_exit_code: stopped for a power signal, start me again."""

    reason: str
    step: int
    loss: float | None
    checkpoint: str | None
    """Folder of the newest complete checkpoint."""


class StepListener(Protocol):
    """All calls come from the thread that trains; those but `on_instruction` on rank 0 only."""

    def on_run_begin(self, facts: RunFacts) -> None: ...

    def on_step(self, record: StepRecord) -> None: ...

    def on_event(self, event: RunEvent) -> None: ...

    def on_run_end(self, result: RunResult) -> None: ...

    def on_instruction(self, name: str, phase: str) -> None:
        """On every rank: `name` is "forward", "backward" or "optimizer", `phase` "begin" or "end"."""
        ...


class NullListener:
    """Listens to nothing; a base for listeners that want a part only."""

    def on_run_begin(self, facts: RunFacts) -> None:
        return None

    def on_step(self, record: StepRecord) -> None:
        return None

    def on_event(self, event: RunEvent) -> None:
        return None

    def on_run_end(self, result: RunResult) -> None:
        return None

    def on_instruction(self, name: str, phase: str) -> None:
        return None


class Fanout:
    """Passes everything on to several listeners. One that raises is named in one warning and then dropped:
    a broken plot must not end a training."""

    def __init__(self, listeners: Sequence[StepListener]) -> None:
        self._listeners = list(listeners)

    @property
    def listeners(self) -> tuple[StepListener, ...]:
        return tuple(self._listeners)

    def on_run_begin(self, facts: RunFacts) -> None:
        self._tell(lambda listener: listener.on_run_begin(facts))

    def on_step(self, record: StepRecord) -> None:
        self._tell(lambda listener: listener.on_step(record))

    def on_event(self, event: RunEvent) -> None:
        self._tell(lambda listener: listener.on_event(event))

    def on_run_end(self, result: RunResult) -> None:
        self._tell(lambda listener: listener.on_run_end(result))

    def on_instruction(self, name: str, phase: str) -> None:
        self._tell(lambda listener: listener.on_instruction(name, phase))

    def _tell(self, call: Callable[[StepListener], None]) -> None:
        for listener in tuple(self._listeners):
            try:
                call(listener)
            except Exception as cause:  # noqa: BLE001  foreign code; the run goes on without it
                self._listeners.remove(listener)
                log.warning("listener %s failed and is dropped: %r", type(listener).__name__, cause)
