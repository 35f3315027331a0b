"""What rank 0 tells the others. Only Step comes often, and only Step and Profile make ranks talk to each other."""

from __future__ import annotations

from dataclasses import dataclass

from job_wrappers.serving.steps.step_input import StepInput


@dataclass(frozen=True, slots=True)
class Load:
    """Read this rank's share of the weights. Answered with Loaded."""

    model: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Run once as large as it may get, without a cache of its own. Answered with Profiled."""

    model: str
    batched_tokens: int
    sequences: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Allocate:
    """All of the cache at once. Answered with the measured bytes/s of a copy to the host; None: no host blocks."""

    model: str
    device_blocks: int
    host_blocks: int


@dataclass(frozen=True, slots=True)
class Step:
    """Not answered: logits come to rank 0 as tensors."""

    model: str
    step: StepInput


@dataclass(frozen=True, slots=True)
class Sleep:
    """Drop the cache, move the weights to CPU RAM."""

    model: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Weights back to the device; the cache comes with Allocate."""

    model: str


@dataclass(frozen=True, slots=True)
class Free:
    """Drop cache and weights."""

    model: str


@dataclass(frozen=True, slots=True)
class SetClock:
    mhz: int | None


@dataclass(frozen=True, slots=True)
class Stop:
    """The last; not answered."""


Command = Load | Profile | Allocate | Step | Sleep | Wake | Free | SetClock | Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    weight_bytes: int
    block_bytes: int
    budget_bytes: int
    """What this rank may use on its device, everything together."""

    host_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    activation_bytes: int
    prefill_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """To the command with the same number; 0: this rank is about to end. `failed`: one line; unless the number is 0 the
    rank goes on, without what it was told to do."""

    number: int
    value: object = None
    failed: str | None = None
