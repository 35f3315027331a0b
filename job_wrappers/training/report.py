"""A run's report: its figures as rows for people, on a terminal too, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from job_wrappers.training.attempts import Attempt
from job_wrappers.training.report_figures import AttemptFigures, RunFigures, run_figures
from job_wrappers.training.report_read import RunRecords, read_run
from job_wrappers.training.words import local_time, number, percent, plan_text, scaled

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    records: RunRecords
    figures: RunFigures


def read_report(folder: Path) -> Report:
    """Raise ConfigError, in one line, for a folder that does not hold a readable run."""
    records = read_run(folder)
    return Report(records, run_figures(records))


def report_json(report: Report) -> dict[str, Any]:
    """Keys are frozen by a test. null: unknown, and `unknown` says why."""
    attempts = [
        {**_facts(attempt), **asdict(figures)}
        for attempt, figures in zip(report.records.attempts, report.figures.attempts, strict=True)
    ]
    return {"folder": str(report.records.folder), **asdict(report.figures), "attempts": attempts}


def print_report(report: Report, console: Console) -> None:
    """Names on the left, so that it reads on a narrow terminal too."""
    _print(console, (report.records.folder.name, ""), run_rows(report.figures))
    for attempt, figures in zip(report.records.attempts, report.figures.attempts, strict=True):
        _print(console, (f"attempt {figures.number}", ""), attempt_rows(attempt, figures))
        if figures.traffic:
            _print(console, BYTES_HEADINGS, bytes_rows(figures))
    if report.figures.micro_batch_changes:
        _print(console, CHANGE_HEADINGS, change_rows(report.figures))


def run_rows(figures: RunFigures) -> list[Row]:
    def said(name: str, words: Callable[[float], str]) -> str:
        return _said(getattr(figures, name), figures.unknown, name, words)

    rows: list[Row] = [
        ("Steps", f"{figures.steps} of {figures.planned_steps}"),
        ("Tokens", f"{figures.tokens:,}"),
        ("Loss, first step", said("first_loss", "{:.4f}".format)),
        ("Loss, last step", said("last_loss", "{:.4f}".format)),
        ("Loss, held-out text", said("held_out_loss", lambda loss: f"{loss:.4f} at step {figures.held_out_step}")),
        ("Step time, median / 95 %", f"{said('step_s', _seconds)} / {number(figures.step_s_p95, '.3f')} s"),
        ("Tokens/s, median", said("tokens_per_s", "{:,.0f}".format)),
        ("Model FLOP/s utilisation", said("model_flops_utilisation", percent)),
        ("Energy, lost work included", said("used_joules", lambda joules: scaled(joules, "J"))),
        ("Energy per token", said("joules_per_token", _per_token)),
        ("Restarts", str(figures.restarts)),
        ("Micro-batch changes", str(len(figures.micro_batch_changes))),
    ]
    if figures.torn_lines:
        rows.append(("Lines torn by a crash", f"{figures.torn_lines}, left out"))
    return rows


def attempt_rows(attempt: Attempt, figures: AttemptFigures) -> list[Row]:
    begin, end = attempt.begin, attempt.end

    def said(name: str, words: Callable[[float], str]) -> str:
        return _said(getattr(figures, name), figures.unknown, name, words)

    peak = "" if figures.peak_flops_per_s is None else f" of the stated {scaled(figures.peak_flops_per_s, 'FLOP/s')}"
    return [
        ("Job", "none" if begin.job_id is None else f"{begin.job_id}, start {begin.restart_count + 1}"),
        ("Nodes", ", ".join(begin.nodes)),
        ("Plan", plan_text(figures.plan)),
        ("Most steps with", f"{figures.micro_batches} micro-batches of {figures.micro_sequences}"),
        ("Began", local_time(begin.began_at_unix_s)),
        ("Resumed from step", "fresh start" if begin.resumed_from_step is None else str(begin.resumed_from_step)),
        ("Ended", f"{local_time(end.ended_at_unix_s)}: {end.reason}" if end else "it runs, or was killed"),
        ("Steps that count", str(figures.steps)),
        ("Step time, median / 95 %", f"{said('step_s', _seconds)} / {number(figures.step_s_p95, '.3f')} s"),
        ("Paused by the ramp limit", f"{figures.pause_s:.1f} s"),
        ("Tokens/s, median", said("tokens_per_s", "{:,.0f}".format)),
        ("Model FLOP/s utilisation", said("model_flops_utilisation", lambda share: percent(share) + peak)),
        ("Energy", said("used_joules", lambda joules: scaled(joules, "J"))),
        ("Energy per token", said("joules_per_token", _per_token)),
        ("Power, training", said("mean_watts", "{:,.0f} W".format)),
        ("Power, before the first step", said("standing_watts", "{:,.0f} W".format)),
        ("Bubble, by formula", percent(figures.bubble_formula_fraction)),
        ("Bubble, replayed", said("bubble_replay_fraction", percent)),
        ("Bubble, measured", said("bubble_measured_fraction", percent)),
        ("Bubble's share of the energy", said("bubble_energy_fraction", percent)),
    ]


BYTES_HEADINGS = ("axis", "bytes a step", "by formula", "ratio")


def bytes_rows(figures: AttemptFigures) -> Iterator[Row]:
    for part in figures.traffic:
        measured, formula = scaled(part.measured_bytes, "B"), scaled(part.formula_bytes, "B")
        yield part.axis, measured, formula, number(part.measured_per_formula, ".3f")


CHANGE_HEADINGS = ("from step", "micro-batch", "took effect after", "s/step", "W")


def change_rows(figures: RunFigures) -> Iterator[Row]:
    for change in figures.micro_batch_changes:
        yield (
            str(change.step),
            f"{change.sequences_before} to {change.sequences_after}",
            f"{change.effect_s:.2f} s",
            f"{number(change.step_s_before, '.3f')} to {change.step_s_after:.3f}",
            f"{number(change.watts_before, ',.0f')} to {number(change.watts_after, ',.0f')}",
        )


def _said(value: float | None, unknown: Mapping[str, str], name: str, words: Callable[[float], str]) -> str:
    return f"unknown: {unknown[name]}" if value is None else words(value)


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _per_token(joules: float) -> str:
    """May be far below 1."""
    return f"{joules:.3g} J"


def _facts(attempt: Attempt) -> dict[str, Any]:
    begin, end = attempt.begin, attempt.end
    return {
        "job_id": begin.job_id,
        "restart_count": begin.restart_count,
        "nodes": list(begin.nodes),
        "policy": begin.policy,
        "parameters": begin.parameters,
        "world_size": begin.world_size,
        "resumed_from_step": begin.resumed_from_step,
        "began_at_unix_s": begin.began_at_unix_s,
        "ended_at_unix_s": end.ended_at_unix_s if end else None,
        "exit_code": end.exit_code if end else None,
        "reason": end.reason if end else None,
    }


def _print(console: Console, headings: Row, rows: Iterable[Row]) -> None:
    table = Table(*headings)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*row)
    console.print(table)
