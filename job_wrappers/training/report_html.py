"""A run's report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable
from pathlib import Path

from job_wrappers.training.report import (
    BYTES_HEADINGS,
    CHANGE_HEADINGS,
    Report,
    Row,
    attempt_rows,
    bytes_rows,
    change_rows,
    run_rows,
)
from job_wrappers.training.report_bubbles import drawn_step, usual_steps
from job_wrappers.training.report_figures import steps_by_attempt
from job_wrappers.training.report_marks import marks_of
from job_wrappers.training.report_page import PAGE
from job_wrappers.training.report_plots import busy_plot, loss_plot, power_plot, speed_plot
from job_wrappers.training.report_timeline import caption, timeline_plot
from job_wrappers.training.words import local_time, plan_text, scaled
from training.errors import StorageError
from training.precision import TABLES, describe


def write_html(report: Report, path: Path) -> None:
    """Raise StorageError when it cannot be written."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(report_html(report))
        new.replace(path)
    except OSError as cause:
        raise StorageError(f"{path}: {cause.strerror}") from cause


def report_html(report: Report) -> str:
    return PAGE.substitute(
        title=html.escape(report.records.folder.name),
        about=html.escape(_about(report)),
        run=_table((), run_rows(report.figures)),
        curves="".join(_curves(report)),
        timeline="".join(_timelines(report)),
        attempts=_attempts(report),
        changes=_changes(report),
        bytes="".join(_bytes(report)),
        precision="".join(_precision(report)),
        events=_events(report),
        written=html.escape(local_time(time.time())),
    )


def _about(report: Report) -> str:
    begin, end = report.records.attempts[-1].begin, report.records.attempts[-1].end
    family = begin.model.get("model_type", "a model")
    ended = "it runs, or was killed" if end is None else f"ended {local_time(end.ended_at_unix_s)}: {end.reason}"
    return f"{family} of {scaled(begin.parameters, '')} parameters, {begin.policy}, {plan_text(begin.plan)}; {ended}"


def _curves(report: Report) -> Iterable[str]:
    records = report.records
    marks = marks_of(records.attempts, records.events)
    if records.steps:
        yield _figure(loss_plot(records.steps, marks))
        yield _figure(speed_plot(records.steps, marks))
        yield _figure(busy_plot(records.steps, marks))
    else:
        yield "<p>No step was made, so there are no curves.</p>"
    power = power_plot(records.attempts, records.steps, marks)
    yield _figure(power) if power else _no_power(report)


def _no_power(report: Report) -> str:
    reasons = dict.fromkeys(part.unknown.get("used_joules", "too few readings") for part in report.figures.attempts)
    return f"<p>Power and energy are unknown: {html.escape('; '.join(reasons))}.</p>"


def _timelines(report: Report) -> Iterable[str]:
    """Of the last attempt of each plan: attempts with the same one look the same."""
    records = report.records
    drawn = {}
    for attempt, steps in zip(records.attempts, steps_by_attempt(records.attempts, records.steps), strict=True):
        plan, usual = usual_steps(attempt.begin, steps)
        found = drawn_step(plan, usual)
        if found is not None:
            drawn[plan] = found
    for found in drawn.values():
        yield _figure(timeline_plot(found), caption(found), kind="wide")
    if not drawn:
        yield "<p>No attempt with several pipeline stages made a step, so there is no bubble to draw.</p>"


def _attempts(report: Report) -> str:
    """A column for each: names are many, attempts are few."""
    columns = [
        attempt_rows(attempt, figures)
        for attempt, figures in zip(report.records.attempts, report.figures.attempts, strict=True)
    ]
    rows = [(cells[0][0], *(value for _, value in cells)) for cells in zip(*columns, strict=True)]
    return _table(("", *(f"attempt {part.number}" for part in report.figures.attempts)), rows)


def _changes(report: Report) -> str:
    if not report.figures.micro_batch_changes:
        return "<p>The micro-batch was not changed while the job ran.</p>"
    return _table(CHANGE_HEADINGS, change_rows(report.figures))


def _bytes(report: Report) -> Iterable[str]:
    for part in report.figures.attempts:
        yield f"<h3>Attempt {part.number}</h3>" if len(report.figures.attempts) > 1 else ""
        none = "no step was made" if not part.steps else "one rank hands nothing to others"
        yield _table(BYTES_HEADINGS, bytes_rows(part)) if part.traffic else f"<p>None: {none}.</p>"


def _precision(report: Report) -> Iterable[str]:
    for name in dict.fromkeys(attempt.begin.policy for attempt in report.records.attempts):
        table = describe(TABLES[name]) if name in TABLES else "unknown to this version of slurm-power-train\n"
        yield f"<details open><summary>{html.escape(name)}</summary><pre>{html.escape(table)}</pre></details>"


def _events(report: Report) -> str:
    told = report.records.events
    if not told:
        return "<p>Nothing but steps.</p>"
    rows = ((local_time(event.at_unix_s), str(event.step), event.kind, event.text) for event in told)
    return _table(("time", "step", "what", ""), rows)


def _figure(svg: str, words: str = "", *, kind: str = "curve") -> str:
    below = f"<figcaption>{html.escape(words)}</figcaption>" if words else ""
    return f'<figure class="{kind}"><div>{svg}</div>{below}</figure>'


def _table(headings: Row, rows: Iterable[Row]) -> str:
    head = "".join(f"<th scope=col>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
        for name, *cells in rows
    )
    return (
        f'<div class="table"><table>{f"<thead><tr>{head}</tr></thead>" if head else ""}'
        f"<tbody>{body}</tbody></table></div>"
    )
