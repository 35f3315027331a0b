"""One iteration as the scheduler decided it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from job_wrappers.serving.scheduling.sequence import Sequence

Move = tuple[int, int]


class ScheduledSequence(NamedTuple):
    """`new_tokens` from `sequence.computed_tokens` on. If it samples, so do `forks`, from the same logits: the other
    choices of a request whose prompt is complete after this step."""

    sequence: Sequence
    new_tokens: int
    samples: bool
    forks: tuple[Sequence, ...] = ()

    @property
    def samplers(self) -> tuple[Sequence, ...]:
        return (self.sequence, *self.forks) if self.samples else ()


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """Sequences with one new token come first."""

    scheduled: tuple[ScheduledSequence, ...]
    swap_out: tuple[Move, ...] = ()
    swap_in: tuple[Move, ...] = ()
    copies: tuple[Move, ...] = ()
    preempted: tuple[Sequence, ...] = ()

    @property
    def new_tokens(self) -> int:
        return sum(entry.new_tokens for entry in self.scheduled)

    @property
    def samplers(self) -> tuple[Sequence, ...]:
        """Who gets a token from this step, in the order of the logits' rows; forks share their parent's row."""
        return tuple(sampler for entry in self.scheduled for sampler in entry.samplers)
