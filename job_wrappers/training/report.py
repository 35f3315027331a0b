"""A run's report: what is read from its folder, as rows for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job_wrappers.training.attempts import Attempt, read_attempts
from job_wrappers.training.summary import AttemptSummary, RunSummary, summarise
from job_wrappers.training.words import local_time, number, percent, plan_text, scaled
from training.errors import ConfigError
from training.run.listener import RunEvent, StepRecord
from training.run.records import read_events, read_steps

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    folder: Path
    attempts: list[Attempt]
    steps: list[StepRecord]
    events: list[RunEvent]
    summary: RunSummary


def read_report(folder: Path) -> Report:
    """Raise ConfigError when no run has begun there."""
    attempts, steps = read_attempts(folder), read_steps(folder)
    if not attempts:
        raise ConfigError(f"run folder = {folder}: no run has begun there")
    return Report(folder, attempts, steps, read_events(folder), summarise(attempts, steps))


def as_json(report: Report) -> dict[str, Any]:
    attempts = [
        {
            "job_id": attempt.begin.job_id,
            "restart_count": attempt.begin.restart_count,
            "nodes": list(attempt.begin.nodes),
            "began_at_unix_s": attempt.begin.began_at_unix_s,
            "ended_at_unix_s": attempt.end.ended_at_unix_s if attempt.end else None,
            "exit_code": attempt.end.exit_code if attempt.end else None,
            "reason": attempt.end.reason if attempt.end else None,
            **asdict(summary),
        }
        for attempt, summary in zip(report.attempts, report.summary.attempts, strict=True)
    ]
    return {"folder": str(report.folder), **asdict(report.summary), "attempts": attempts}


def run_rows(report: Report) -> list[Row]:
    summary, last = report.summary, report.attempts[-1]
    planned = last.begin.steps
    return [
        ("Steps", f"{summary.steps} of {planned}"),
        ("Tokens", f"{summary.tokens:,}"),
        ("Loss, first step", number(summary.first_loss, ".4f")),
        ("Loss, last step", number(summary.last_loss, ".4f")),
        ("Loss, held-out text", number(summary.held_out_loss, ".4f")),
        ("Energy, lost work included", scaled(summary.used_joules, "J")),
        ("Energy per token", scaled_small(summary.joules_per_token)),
        ("Peak that utilisation is quoted against", scaled(last.begin.peak_flops_per_s, "FLOP/s")),
        ("Ended", last.end.reason if last.end else "still runs, or was killed"),
    ]


ATTEMPT_HEADINGS = (
    "attempt", "job", "plan", "began", "steps", "s/step", "tokens/s", "utilisation", "W", "J/token",
    "bubble: formula / replay / measured",
)  # fmt: skip


def attempt_rows(report: Report) -> Iterator[Row]:
    for attempt, part in zip(report.attempts, report.summary.attempts, strict=True):
        begin = attempt.begin
        job = "-" if begin.job_id is None else f"{begin.job_id}.{begin.restart_count}"
        yield (
            str(part.number),
            job,
            plan_text(part.plan),
            local_time(begin.began_at_unix_s),
            str(part.steps),
            number(part.step_s, ".3f"),
            number(part.tokens_per_s, ",.0f"),
            percent(part.model_flops_utilisation),
            number(part.mean_watts, ",.0f"),
            scaled_small(part.joules_per_token),
            " / ".join(map(percent, _bubbles(part))),
        )


BYTES_HEADINGS = ("attempt", "axis", "measured per step", "formula per step", "measured / formula")


def bytes_rows(report: Report) -> Iterator[Row]:
    for part in report.summary.attempts:
        for axis in sorted({*part.bytes_by_axis, *part.bytes_formula_by_axis}):
            measured, formula = part.bytes_by_axis.get(axis), part.bytes_formula_by_axis.get(axis)
            ratio = measured / formula if measured is not None and formula else None
            yield str(part.number), axis, scaled(measured, "B"), scaled(formula, "B"), number(ratio, ".3f")


def scaled_small(value: float | None) -> str:
    """Joules per token: may be far below 1."""
    return "-" if value is None else f"{value:.3g} J"


def _bubbles(part: AttemptSummary) -> tuple[float | None, ...]:
    return part.bubble_formula_fraction, part.bubble_replay_fraction, part.bubble_measured_fraction
