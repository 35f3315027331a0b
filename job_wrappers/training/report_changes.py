"""Changes of the micro-batch while a job ran: how fast they took effect, and what they did to its power. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from job_wrappers.training.attempts import Attempt, Trace
from job_wrappers.training.report_energy import mean_watts
from training.run.listener import RunEvent

FACTS = {
    "asked_at_unix_s",
    "effect_s",
    "micro_sequences_before",
    "micro_sequences_after",
    "step_s_before",
    "step_s_after",
}
"""Of an event of this kind: training.run.steering tells them."""

WINDOW_S = 30.0
"""Power is compared over at most this long before and after a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatchChange:
    step: int
    """The first whole one with the new micro-batch."""

    at_unix_s: float
    """When that step ended."""

    sequences_before: int
    sequences_after: int
    effect_s: float
    """From the wish to the end of that step."""

    step_s_before: float | None
    step_s_after: float
    watts_before: float | None
    watts_after: float | None


def micro_batch_changes(
    attempts: Sequence[Attempt], events: Sequence[RunEvent], *, first_steps_unix_s: Sequence[float]
) -> tuple[MicroBatchChange, ...]:
    """`first_steps_unix_s`: when each attempt began to train; before, its power says nothing about a micro-batch."""
    changed = [event for event in events if event.kind == "micro_batch_changed" and event.facts.keys() >= FACTS]
    bounds = [
        *first_steps_unix_s,
        *(event.at_unix_s for event in changed),
        *(float(event.facts["asked_at_unix_s"]) for event in changed),
    ]
    return tuple(_change(event, _trace_at(attempts, event.at_unix_s), bounds) for event in changed)


def _change(event: RunEvent, trace: Trace, bounds: Sequence[float]) -> MicroBatchChange:
    facts, asked_s, at_s = event.facts, float(event.facts["asked_at_unix_s"]), event.at_unix_s
    from_s = max([asked_s - WINDOW_S, *(bound for bound in bounds if bound < asked_s), *_ends(trace)[:1]])
    to_s = min([at_s + WINDOW_S, *(bound for bound in bounds if bound > at_s), *_ends(trace)[1:]])
    return MicroBatchChange(
        step=event.step,
        at_unix_s=at_s,
        sequences_before=facts["micro_sequences_before"],
        sequences_after=facts["micro_sequences_after"],
        effect_s=facts["effect_s"],
        step_s_before=facts["step_s_before"],
        step_s_after=facts["step_s_after"],
        watts_before=mean_watts(trace, from_s, asked_s),
        watts_after=mean_watts(trace, at_s, to_s),
    )


def _ends(trace: Trace) -> list[float]:
    return [trace[0][0], trace[-1][0]] if trace else []


def _trace_at(attempts: Sequence[Attempt], at_unix_s: float) -> Trace:
    begun = [attempt for attempt in attempts if attempt.begin.began_at_unix_s <= at_unix_s]
    return begun[-1].trace if begun else []
