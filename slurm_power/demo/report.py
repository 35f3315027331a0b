"""The demo's outcome as one table on the terminal, one JSON file and one self-contained HTML page."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slurm_power.demo.plots import battery_plot, grid_plot, jobs_plot
from slurm_power.demo.result import RunResult
from slurm_power.units import kw_from_watts, kwh_from_joules

Row = tuple[str, Callable[[RunResult], str]]

ROWS: tuple[Row, ...] = (
    ("Peak of the metering intervals", lambda run: f"{kw_from_watts(run.grid.peak_grid_watts):.2f} kW"),
    ("Energy from the grid", lambda run: f"{kwh_from_joules(run.grid.energy_grid_joules):.3f} kWh"),
    ("Bill: energy", lambda run: f"{run.grid.bill_energy:.2f}"),
    ("Bill: demand", lambda run: f"{run.grid.bill_demand:.2f}"),
    ("Bill: total", lambda run: f"{run.grid.bill_total:.2f}"),
    ("Battery, equivalent full cycles", lambda run: f"{run.grid.battery_cycles:.2f}"),
    ("Jobs finished of submitted", lambda run: f"{run.jobs.jobs_finished} of {run.jobs.jobs_submitted}"),
    ("Jobs lost", lambda run: str(run.jobs.jobs_lost)),
    ("Jobs delayed", lambda run: str(run.jobs.jobs_delayed)),
    ("Jobs that waited for Licenses", lambda run: str(sum(span.waited_for_licenses for span in run.spans))),
    ("Jobs capped", lambda run: str(run.jobs.jobs_capped)),
    ("Jobs requeued", lambda run: str(run.jobs.jobs_requeued)),
    ("Firm jobs delayed or capped", lambda run: str(run.jobs.firm_jobs_affected)),
)


def rows(unmanaged: RunResult, managed: RunResult) -> list[tuple[str, str, str]]:
    found = [(label, show(unmanaged), show(managed)) for label, show in ROWS]
    for job_class in sorted(managed.jobs.mean_delay_s):
        mean_s, worst_s = managed.jobs.mean_delay_s[job_class], managed.jobs.worst_delay_s[job_class]
        found.append((f"Delay of {job_class} jobs, mean / worst", "-", f"{mean_s:.1f} s / {worst_s:.1f} s"))
    return found


def peak_cut_fraction(unmanaged: RunResult, managed: RunResult) -> float:
    return 1.0 - managed.grid.peak_grid_watts / unmanaged.grid.peak_grid_watts


def print_table(console: Console, unmanaged: RunResult, managed: RunResult) -> None:
    table = Table("", unmanaged.label, managed.label)
    for row in rows(unmanaged, managed):
        table.add_row(*row)
    console.print(table)
    console.print(f"Peak cut: {peak_cut_fraction(unmanaged, managed):.1%}")


def write_json(path: Path, unmanaged: RunResult, managed: RunResult, *, about: dict[str, object]) -> None:
    content = {
        "unmanaged": unmanaged.to_json(),
        "managed": managed.to_json(),
        "peak_cut_fraction": peak_cut_fraction(unmanaged, managed),
        "about": about,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_html(path: Path, unmanaged: RunResult, managed: RunResult, *, about: dict[str, object]) -> None:
    table = "".join(
        f"<tr><th scope=row>{html.escape(label)}</th><td>{html.escape(left)}</td><td>{html.escape(right)}</td></tr>"
        for label, left, right in rows(unmanaged, managed)
    )
    facts = "".join(f"<li>{html.escape(key)}: {html.escape(str(value))}</li>" for key, value in about.items())
    path.write_text(
        _PAGE.format(
            unmanaged=html.escape(unmanaged.label),
            managed=html.escape(managed.label),
            cut=f"{peak_cut_fraction(unmanaged, managed):.1%}",
            table=table,
            jobs_decided=_decisions(managed, "job"),
            reserved=_decisions(managed, "reservation"),
            facts=facts,
            grid=grid_plot(unmanaged, managed),
            battery=battery_plot(managed),
            jobs=jobs_plot(unmanaged, managed),
        )
    )


def _decisions(run: RunResult, subject: str) -> str:
    return "".join(
        f"<tr><td>{24.0 * (event['wall_s'] - run.start_wall_s) / run.day_s:.1f} h</td>"
        f"<td>{html.escape(event['verb'])}</td><td>{html.escape(event['subject'])}</td>"
        f"<td>{html.escape(event['reason'])}{html.escape(_failure(event.get('failure')))}</td></tr>"
        for event in run.decisions
        if str(event["subject"]).startswith(subject)
    )


def _failure(failure: str | None) -> str:
    return f" (failed: {failure})" if failure else ""


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>slurm-power demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2833;
   background: #fff; }}
 svg {{ max-width: 100%; height: auto; background: #fff; }}
 table {{ border-collapse: collapse; }}
 th, td {{ text-align: left; padding: .25rem .8rem; border-bottom: 1px solid #d5d8dc; }}
 td {{ font-variant-numeric: tabular-nums; }} details table {{ font-size: 13px; }}
</style></head><body>
<h1>One compressed day: peak {cut} lower</h1>
<table><thead><tr><th></th><th>{unmanaged}</th><th>{managed}</th></tr></thead><tbody>{table}</tbody></table>
<h2>Grid import</h2>{grid}
<h2>Battery</h2>{battery}
<h2>Jobs</h2>{jobs}
<details open><summary>Every decision about a job, and its reason</summary>
<table><thead><tr><th>time</th><th>what</th><th>who</th><th>why</th></tr></thead><tbody>{jobs_decided}</tbody></table></details>
<details><summary>Every change of a licence reservation</summary>
<table><thead><tr><th>time</th><th>what</th><th>who</th><th>why</th></tr></thead><tbody>{reserved}</tbody></table></details>
<h2>How it was made</h2><ul>{facts}</ul>
</body></html>
"""
