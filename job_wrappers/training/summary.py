"""A run's figures, attempt by attempt, from what its folder holds. Pure: numbers in, numbers out; unknown is None."""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from job_wrappers.training.attempts import Attempt, AttemptBegin, Trace
from training.parallel.plan import ParallelPlan
from training.planning.bubble import replayed_fraction
from training.planning.replay import StageTimes
from training.run.listener import StepRecord

BACKWARD_SHARE = 2.0 / 3.0
"""Of a stage's busy time: a backward pass does twice the work of a forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSummary:
    """Steps that a later attempt did again are not counted here; their joules are in used_joules."""

    number: int
    plan: Mapping[str, object]
    steps: int
    tokens: int
    step_s: float | None
    """Median."""

    tokens_per_s: float | None
    """Tokens of its steps over their time, pauses included; without start, saves and evaluation."""

    used_joules: float | None
    """Of the whole attempt, its start and lost work included."""

    joules_per_token: float | None
    """Between the begin of its first and the end of its last step."""

    mean_watts: float | None
    model_flops_utilisation: float | None
    bubble_formula_fraction: float
    bubble_replay_fraction: float | None
    bubble_measured_fraction: float | None
    bytes_by_axis: Mapping[str, float]
    """Mean of a step, all ranks; the first step, which also agrees on shapes, left out."""

    bytes_formula_by_axis: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    attempts: tuple[AttemptSummary, ...]
    first_loss: float | None
    last_loss: float | None
    held_out_loss: float | None
    steps: int
    tokens: int
    used_joules: float | None
    joules_per_token: float | None
    """All joules, lost work too, over the tokens that count."""


def summarise(attempts: Sequence[Attempt], steps: Sequence[StepRecord]) -> RunSummary:
    parts = [
        summarise_attempt(number, attempt, own)
        for number, (attempt, own) in enumerate(zip(attempts, steps_by_attempt(attempts, steps), strict=True), start=1)
    ]
    known = [part.used_joules for part in parts if part.used_joules is not None]
    used_joules = sum(known) if parts and len(known) == len(parts) else None
    tokens = sum(step.tokens for step in steps)
    held_out = [step.held_out_loss for step in steps if step.held_out_loss is not None]
    return RunSummary(
        attempts=tuple(parts),
        first_loss=steps[0].loss if steps else None,
        last_loss=steps[-1].loss if steps else None,
        held_out_loss=held_out[-1] if held_out else None,
        steps=len(steps),
        tokens=tokens,
        used_joules=used_joules,
        joules_per_token=used_joules / tokens if used_joules is not None and tokens else None,
    )


def summarise_attempt(number: int, attempt: Attempt, steps: Sequence[StepRecord]) -> AttemptSummary:
    begin = attempt.begin
    plan, usual = usual_steps(begin, steps)
    seconds = sum(step.step_s + step.pause_s for step in steps)
    tokens = sum(step.tokens for step in steps)
    joules, span_s = _joules_of_steps(attempt.trace, steps)
    return AttemptSummary(
        number=number,
        plan=begin.plan,
        steps=len(steps),
        tokens=tokens,
        step_s=statistics.median(step.step_s for step in steps) if steps else None,
        tokens_per_s=tokens / seconds if seconds > 0 else None,
        used_joules=attempt.used_joules,
        joules_per_token=joules / tokens if joules is not None and tokens else None,
        mean_watts=joules / span_s if joules is not None and span_s > 0 else None,
        model_flops_utilisation=_mean([step.model_flops_utilisation for step in steps]),
        bubble_formula_fraction=plan.bubble_fraction(),
        bubble_replay_fraction=replayed_bubble(plan, usual),
        bubble_measured_fraction=measured_bubble(usual),
        bytes_by_axis=_mean_bytes(steps[1:] or steps),
        bytes_formula_by_axis=begin.bytes_formula_by_axis,
    )


def steps_by_attempt(attempts: Sequence[Attempt], steps: Sequence[StepRecord]) -> list[list[StepRecord]]:
    """A step belongs to the last attempt that had begun when it ended."""
    begins = [attempt.begin.began_at_unix_s for attempt in attempts]
    found: list[list[StepRecord]] = [[] for _ in attempts]
    for step in steps:
        number = bisect.bisect_right(begins, step.ended_at_unix_s) - 1
        if number >= 0:
            found[number].append(step)
    return found


def measured_bubble(steps: Sequence[StepRecord]) -> float | None:
    """Share of the ranks' time in which they did not compute: waiting, communication, and all else in a step."""
    shares = [statistics.fmean(step.busy_fraction_by_stage) for step in steps if step.busy_fraction_by_stage]
    return 1.0 - statistics.fmean(shares) if shares else None


def usual_steps(begin: AttemptBegin, steps: Sequence[StepRecord]) -> tuple[ParallelPlan, list[StepRecord]]:
    """The micro-batch that most steps had, as a plan, and those steps: it may be changed while the job runs."""
    plan = ParallelPlan(**begin.plan)
    if not steps:
        return plan, []
    micro_sequences = statistics.mode(step.micro_sequences for step in steps)
    micro_batches = begin.global_sequences // (plan.data * micro_sequences)
    usual = [step for step in steps if step.micro_sequences == micro_sequences]
    return replace(plan, micro_sequences=micro_sequences, micro_batches=micro_batches), usual


def replayed_bubble(plan: ParallelPlan, steps: Sequence[StepRecord]) -> float | None:
    """The schedule played through with each stage's measured busy time: imbalance shows, communication does not."""
    ranks = plan.pipeline
    busy_s = [_mean([step.busy_fraction_by_stage[rank] * step.step_s for step in steps]) for rank in range(ranks)]
    times = [seconds / plan.micro_batches for seconds in busy_s if seconds]
    if len(times) != ranks:
        return None
    if plan.chunks == 2:  # a rank holds stage r and stage 2p-1-r, and only their sum is known
        times = [times[min(stage, 2 * ranks - 1 - stage)] / 2 for stage in range(2 * ranks)]
    stages = StageTimes(
        forward_s=tuple(seconds * (1.0 - BACKWARD_SHARE) for seconds in times),
        backward_s=tuple(seconds * BACKWARD_SHARE for seconds in times),
    )
    return replayed_fraction(plan.schedule, ranks, plan.micro_batches, stages)


def joules_at(trace: Trace, at_unix_s: float) -> float | None:
    """Between two readings on the line between them; None outside the trace."""
    if not trace or not trace[0][0] <= at_unix_s <= trace[-1][0]:
        return None
    after = bisect.bisect_left([row[0] for row in trace], at_unix_s)
    if after == 0:
        return trace[0][1]
    (from_s, from_joules), (to_s, to_joules) = trace[after - 1], trace[after]
    share = (at_unix_s - from_s) / (to_s - from_s) if to_s > from_s else 1.0
    return from_joules + share * (to_joules - from_joules)


def joules_per_token_curve(trace: Trace, steps: Sequence[StepRecord], *, window_s: float) -> list[tuple[float, float]]:
    """(Unix time, J/token) over groups of steps that last at least `window_s`: counters are read once a second."""
    curve: list[tuple[float, float]] = []
    begin: tuple[float, float] | None = None
    tokens = 0
    for step in steps:
        joules = joules_at(trace, step.ended_at_unix_s)
        if joules is None or begin is None:
            begin, tokens = (None if joules is None else (step.ended_at_unix_s, joules)), 0
            continue
        tokens += step.tokens
        if step.ended_at_unix_s - begin[0] >= window_s:
            curve.append((step.ended_at_unix_s, (joules - begin[1]) / tokens))
            begin, tokens = (step.ended_at_unix_s, joules), 0
    return curve


def _joules_of_steps(trace: Trace, steps: Sequence[StepRecord]) -> tuple[float | None, float]:
    if not steps:
        return None, 0.0
    begin_s = steps[0].ended_at_unix_s - steps[0].step_s
    first, last = joules_at(trace, begin_s), joules_at(trace, steps[-1].ended_at_unix_s)
    return (None if first is None or last is None else last - first), steps[-1].ended_at_unix_s - begin_s


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _mean_bytes(steps: Sequence[StepRecord]) -> dict[str, float]:
    axes = sorted({axis for step in steps for axis in step.bytes_by_axis})
    return {axis: statistics.fmean(step.bytes_by_axis.get(axis, 0.0) for step in steps) for axis in axes}
