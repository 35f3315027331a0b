"""A run's report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path

from job_wrappers.training.report import (
    ATTEMPT_HEADINGS,
    BYTES_HEADINGS,
    Report,
    Row,
    attempt_rows,
    bytes_rows,
    run_rows,
)
from job_wrappers.training.report_plots import MARKED, busy_plot, loss_plot, power_plot, speed_plot
from job_wrappers.training.words import local_time
from training.errors import StorageError


def write_html(report: Report, path: Path) -> None:
    """Raise StorageError when it cannot be written."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(page(report))
        new.replace(path)
    except OSError as cause:
        raise StorageError(f"{path}: {cause.strerror}") from cause


def page(report: Report) -> str:
    steps, events = report.steps, report.events
    power = power_plot(report.attempts, steps, events)
    return _PAGE.format(
        title=html.escape(report.folder.name),
        legend=", ".join(
            f'<span style="color:{colour}">{kind.replace("_", " ")}</span>' for kind, colour in MARKED.items()
        ),
        run=_table((), run_rows(report)),
        attempts=_table(ATTEMPT_HEADINGS, attempt_rows(report)),
        bytes=_table(BYTES_HEADINGS, bytes_rows(report)),
        loss=loss_plot(steps, events),
        speed=speed_plot(steps, events),
        busy=busy_plot(steps, events),
        power=power or f"<p>Unknown: {html.escape(_why_unknown(report))}.</p>",
        events=_table(
            ("time", "step", "what"), ((local_time(e.at_unix_s), str(e.step), f"{e.kind}: {e.text}") for e in events)
        ),
    )


def _why_unknown(report: Report) -> str:
    reasons = [attempt.end.energy_unknown for attempt in report.attempts if attempt.end and attempt.end.energy_unknown]
    return reasons[-1] if reasons else "no energy counter was read"


def _table(headings: Row, rows: Iterable[Row]) -> str:
    head = "".join(f"<th scope=col>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
        for name, *cells in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Training {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2833;
   background: #fff; }}
 svg {{ max-width: 100%; height: auto; background: #fff; }}
 table {{ border-collapse: collapse; margin: .5rem 0; }}
 th, td {{ text-align: left; padding: .25rem .8rem; border-bottom: 1px solid #d5d8dc; vertical-align: top; }}
 td {{ font-variant-numeric: tabular-nums; }} details table, .wide {{ font-size: 13px; }} .wide {{ overflow-x: auto; }}
</style></head><body>
<h1>Training {title}</h1>
{run}
<p>Marked in the plots: {legend}.</p>
{loss}
{speed}
{busy}
<h2>Power</h2>{power}
<h2>Attempts</h2><div class="wide">{attempts}</div>
<p>Bubble: by formula for equal stages; replayed, the schedule played through with each stage's measured time; measured,
the share of the ranks' time in which they did not compute.</p>
<h2>Bytes handed to collectives and sends</h2>{bytes}
<details><summary>Everything that happened</summary>{events}</details>
</body></html>
"""
