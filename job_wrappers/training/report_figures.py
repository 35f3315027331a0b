"""A run's figures, attempt by attempt, from what its folder holds. Pure: records in, numbers out; unknown is None and
has its reason."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from job_wrappers.training.attempts import Attempt
from job_wrappers.training.report_bubbles import measured_bubble, replayed_bubble, usual_steps
from job_wrappers.training.report_changes import MicroBatchChange, micro_batch_changes
from job_wrappers.training.report_energy import SHORTEST_S, joules_between, mean_watts
from job_wrappers.training.report_read import RunRecords, read_run
from job_wrappers.training.report_traffic import AxisBytes, traffic_of
from training.run.listener import StepRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFigures:
    """Steps that a later attempt did again are not counted here; their joules are in used_joules.

    A run may tell only every n-th step ([run] log_every_steps): times, shares and bytes are those of the told ones.
    """

    number: int
    plan: Mapping[str, object]
    steps: int
    tokens: int
    step_s: float | None
    """Median, without pauses, saves and evaluation."""

    step_s_p95: float | None
    pause_s: float
    """Waited between steps for the ramp limit, in all."""

    tokens_per_s: float | None
    """Median, pauses included."""

    model_flops_utilisation: float | None
    """Mean, against peak_flops_per_s."""

    peak_flops_per_s: float | None
    used_joules: float | None
    """Of the whole attempt, its start and lost work included."""

    joules_per_token: float | None
    """While it trained: evaluations, saves and pauses between its steps included. So is mean_watts."""

    mean_watts: float | None
    standing_watts: float | None
    """While it made the model ready, before the first step."""

    micro_sequences: int
    """Of most steps: bubbles and bytes are for these."""

    micro_batches: int
    bubble_formula_fraction: float
    bubble_replay_fraction: float | None
    bubble_measured_fraction: float | None
    bubble_energy_fraction: float | None
    """Share of the steps' joules that the ranks drew while they did not compute, taken as standing_watts."""

    traffic: tuple[AxisBytes, ...]
    unknown: Mapping[str, str]
    """Why a figure above is None, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    attempts: tuple[AttemptFigures, ...]
    planned_steps: int
    steps: int
    tokens: int
    first_loss: float | None
    last_loss: float | None
    held_out_loss: float | None
    held_out_step: int | None
    step_s: float | None
    step_s_p95: float | None
    tokens_per_s: float | None
    model_flops_utilisation: float | None
    used_joules: float | None
    joules_per_token: float | None
    """All joules, lost work too, over the tokens that count."""

    restarts: int
    micro_batch_changes: tuple[MicroBatchChange, ...]
    torn_lines: int
    unknown: Mapping[str, str]


def figures_of(run_folder: Path) -> RunFigures:
    """Raise ConfigError, in one line, for a folder that does not hold a readable run."""
    return run_figures(read_run(run_folder))


def run_figures(records: RunRecords) -> RunFigures:
    attempts, steps = records.attempts, records.steps
    own = steps_by_attempt(attempts, steps)
    parts = [attempt_figures(number, *pair) for number, pair in enumerate(zip(attempts, own, strict=True), start=1)]
    used_joules, why_no_joules = _all_joules(parts)
    tokens = sum(part.tokens for part in parts)
    held_out = [step for step in steps if step.held_out_loss is not None]
    values = {
        "first_loss": steps[0].loss if steps else None,
        "last_loss": steps[-1].loss if steps else None,
        "held_out_loss": held_out[-1].held_out_loss if held_out else None,
        "step_s": _median(step.step_s for step in steps),
        "step_s_p95": p95([step.step_s for step in steps]),
        "tokens_per_s": _median(step.tokens_per_s for step in steps),
        "model_flops_utilisation": _mean(step.model_flops_utilisation for step in steps),
        "used_joules": used_joules,
        "joules_per_token": used_joules / tokens if used_joules is not None and tokens else None,
    }
    reasons = {
        "held_out_loss": "no held-out text was evaluated",
        "model_flops_utilisation": parts[-1].unknown.get("model_flops_utilisation", NO_STEP),
        "used_joules": why_no_joules,
        "joules_per_token": why_no_joules if used_joules is None else NO_STEP,
    }
    return RunFigures(
        attempts=tuple(parts),
        planned_steps=attempts[-1].begin.steps,
        steps=steps[-1].step if steps else 0,
        tokens=tokens,
        **values,
        held_out_step=held_out[-1].step if held_out else None,
        restarts=len(attempts) - 1,
        micro_batch_changes=micro_batch_changes(
            attempts, records.events, first_steps_unix_s=[attempt.begin.trained_from_unix_s for attempt in attempts]
        ),
        torn_lines=records.torn_lines,
        unknown=_unknown(values, reasons),
    )


def attempt_figures(number: int, attempt: Attempt, steps: Sequence[StepRecord]) -> AttemptFigures:
    begin = attempt.begin
    plan, usual = usual_steps(begin, steps)
    done = steps[-1].step - (begin.resumed_from_step or 0) if steps else 0
    tokens = done * begin.global_sequences * begin.sequence_length_tokens
    joules, watts = _training_energy(attempt, steps)
    waiting_watts = _standing_watts(attempt)
    values = {
        "step_s": _median(step.step_s for step in steps),
        "step_s_p95": p95([step.step_s for step in steps]),
        "tokens_per_s": _median(step.tokens_per_s for step in steps),
        "model_flops_utilisation": _mean(step.model_flops_utilisation for step in steps),
        "used_joules": attempt.used_joules,
        "joules_per_token": joules / tokens if joules is not None and tokens else None,
        "mean_watts": watts,
        "standing_watts": waiting_watts,
        "bubble_replay_fraction": replayed_bubble(plan, usual),
        "bubble_measured_fraction": measured_bubble(usual),
        "bubble_energy_fraction": _bubble_energy(steps, done, joules, waiting_watts),
    }
    return AttemptFigures(
        number=number,
        plan=begin.plan,
        steps=done,
        tokens=tokens,
        pause_s=sum(step.pause_s for step in steps),
        peak_flops_per_s=begin.peak_flops_per_s,
        micro_sequences=plan.micro_sequences,
        micro_batches=plan.micro_batches,
        bubble_formula_fraction=plan.bubble_fraction(),
        traffic=traffic_of(begin, plan, usual),
        unknown=_unknown(values, _attempt_reasons(attempt, steps)),
        **values,
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


def p95(values: Sequence[float]) -> float | None:
    """The least value that 95 % do not exceed (nearest rank)."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1] if values else None


NO_STEP = "no step was made"
NO_READING = "no energy counter was read"


def _attempt_reasons(attempt: Attempt, steps: Sequence[StepRecord]) -> dict[str, str]:
    peak = attempt.begin.peak_flops_per_s
    end_reason = attempt.end.energy_unknown if attempt.end is not None else None
    no_joules = end_reason or NO_READING
    outside = no_joules if attempt.used_joules is None else "the readings do not cover its steps"
    standing = no_joules if not attempt.trace else f"less than {SHORTEST_S:.0f} s of readings before the first step"
    if not steps:
        return {"used_joules": no_joules, "standing_watts": standing}
    no_stage = "no rank's busy time was measured"
    return {
        "model_flops_utilisation": "no peak is stated: [run] peak_flops_per_s" if peak is None else "not measured",
        "used_joules": no_joules,
        "joules_per_token": outside,
        "mean_watts": outside,
        "standing_watts": standing,
        "bubble_replay_fraction": no_stage,
        "bubble_measured_fraction": no_stage,
        "bubble_energy_fraction": standing if _standing_watts(attempt) is None else outside,
    }


def _unknown(values: Mapping[str, float | None], reasons: Mapping[str, str]) -> dict[str, str]:
    return {name: reasons.get(name, NO_STEP) for name, value in values.items() if value is None}


def _all_joules(parts: Sequence[AttemptFigures]) -> tuple[float | None, str]:
    """A sum with a gap is no sum."""
    for part in parts:
        if part.used_joules is None:
            return None, f"attempt {part.number}: {part.unknown['used_joules']}"
    return sum(part.used_joules or 0.0 for part in parts), ""


def _training_energy(attempt: Attempt, steps: Sequence[StepRecord]) -> tuple[float | None, float | None]:
    """Joules and mean watts from the first step's begin to the last one's end."""
    if not steps:
        return None, None
    span = attempt.begin.trained_from_unix_s, steps[-1].ended_at_unix_s
    return joules_between(attempt.trace, *span), mean_watts(attempt.trace, *span)


def _standing_watts(attempt: Attempt) -> float | None:
    """Draw of GPUs that hold the model, or parts of it, and wait."""
    trace = attempt.trace
    return mean_watts(trace, trace[0][0], attempt.begin.trained_from_unix_s) if trace else None


def _bubble_energy(
    steps: Sequence[StepRecord], done: int, joules: float | None, waiting_watts: float | None
) -> float | None:
    """`done`: how many steps `joules` were drawn for; those that were not told are taken to be like the told ones."""
    if not joules or waiting_watts is None or not all(step.busy_fraction_by_stage for step in steps):
        return None
    idle_s = [step.step_s * (1.0 - statistics.fmean(step.busy_fraction_by_stage)) for step in steps]
    return min(1.0, waiting_watts * statistics.fmean(idle_s) * done / joules)


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
