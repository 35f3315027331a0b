"""Energy accounts on a terminal: one line a job, below it what the sums rest on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from slurm_power.cli.jobs_energy_rows import Found, JobRow
from slurm_power.cli.words import UNKNOWN, printable
from slurm_power.monitoring.energy_account import Gap, Spent, Worth

_TOLD_FRACTION = 0.001
"""Less than this integrated, or of the time unknown, is not worth a line."""


def print_jobs(found: Found, rows: Sequence[JobRow], *, attempts: bool, whole: bool) -> None:
    """`whole`: the rows are all there is, so that idle and sum belong below them."""
    console = Console(highlight=False, markup=False)
    console.print(f"{_when(found.since_wall_s)} to {_when(found.until_wall_s)}")
    if not rows:
        console.print("No job held a GPU then.")
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("job", "user", "account", "began", "runs"):
        table.add_column(name)
    for name in ("ran", "GPUs", "GPU", "CPU", "rest", "energy", "mean W", found.currency or "cost", "kg CO2e"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
        if attempts:
            _add_parts(table, row)
    if whole:
        _add_idle(table, found)
    console.print(table)
    for line in _notes(found, rows):
        console.print(line)


def _cells(row: JobRow) -> list[str]:
    return [
        str(row.job_id) if row.job_id is not None else f"{row.jobs} jobs",
        printable(row.user),
        printable(row.account),
        _when(row.attempts[0].begin_wall_s) if row.attempts else "",
        str(len(row.attempts) or ""),
        _span(row.ran_s),
        str(row.gpus or ""),
        *_spent_cells(row.spent, row.mean_watts),
    ]


def _add_parts(table: Table, row: JobRow) -> None:
    for number, attempt in enumerate(row.attempts, start=1):
        if len(row.attempts) > 1:
            begin, ran = _when(attempt.begin_wall_s), _span(attempt.length_s)
            cells = _spent_cells(attempt.spent, attempt.mean_watts)
            table.add_row(f"  run {number}", "", "", begin, "", ran, str(len(attempt.uuids)), *cells, style="dim")
    for run in row.runs:
        step = "" if run.step_id is None else f".{run.step_id}"
        ran = "" if run.duration_s is None else _span(run.duration_s)
        table.add_row(f"  step{step}", printable(run.node), "", "", "", ran, "", joules(run.energy_joules), style="dim")


def _add_idle(table: Table, found: Found) -> None:
    account = found.account
    table.add_section()
    table.add_row("nobody", "", "", "", "", "", "", *_spent_cells(account.idle, None))
    if account.apart.joules >= 1.0:
        apart = Spent(beside=account.apart, worth=Worth(None, None))
        table.add_row("nodes", "", "", "", "", "", "", *_spent_cells(apart, None))
    table.add_row("all", *[""] * 9, joules(account.total_joules), style="bold")


def _spent_cells(spent: Spent, mean_watts: float | None) -> list[str]:
    money, grams = spent.worth.money, spent.worth.carbon_grams
    return [
        joules(spent.gpu.joules),
        joules(spent.beside.cpu_joules),
        joules(spent.beside.rest_joules),
        joules(spent.joules),
        "" if mean_watts is None else f"{mean_watts:.0f}",
        UNKNOWN if money is None else f"{money:.2f}",
        UNKNOWN if grams is None else f"{grams / 1000:.3f}",
    ]


def _notes(found: Found, rows: Sequence[JobRow]) -> list[str]:
    notes = []
    for row in rows:
        gpu, who = row.spent.gpu, f"job {row.job_id}" if row.job_id is not None else row.user or row.account
        if gpu.joules > 0 and gpu.integrated_joules > _TOLD_FRACTION * gpu.joules:
            share = gpu.integrated_joules / gpu.joules
            notes.append(f"{printable(who)}: {share:.1%} of the GPU energy is integrated power, not counted.")
        if gpu.unknown_s > _TOLD_FRACTION * max(row.ran_s, 1.0):
            where = _where([gap for attempt in row.attempts for gap in attempt.gaps])
            told = f"nothing is known of {_span(gpu.unknown_s)} of GPU time{where}; it is left out."
            notes.append(f"{printable(who)}: {told}")
    if found.check is not None:
        notes.append(_check_words(found))
    if found.pue != 1.0 and (found.currency or any(row.spent.worth.carbon_grams is not None for row in rows)):
        notes.append(f"Cost and CO2e count each joule {found.pue:g} times (PUE); demand charges belong to no job.")
    return notes


def _where(gaps: Sequence[Gap]) -> str:
    """The first gap, and how many more."""
    if not gaps:
        return ""
    first, more = gaps[0], f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    return f" ({first.node} {_when(first.from_wall_s)} to {_when(first.to_wall_s)}{more})"


def _check_words(found: Found) -> str:
    check, total = found.check, found.account.total_joules
    if check is None or check.drawn_joules <= 0:
        return "The nodes' own draw is not known for this time."
    drew = joules(check.drawn_joules)
    return (
        f"Jobs and nobody add up to {total / check.drawn_joules:.1%} of the nodes' own draw"
        f" ({drew} over {_span(check.known_s)} of node time)."
    )


def joules(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    for prefix in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g} {prefix}J"
        value /= 1000
    return f"{value:.4g} TJ"


def _when(wall_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(wall_s))


def _span(seconds: float) -> str:
    """As sacct: days-hours:minutes:seconds."""
    minutes, whole_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{whole_s:02}" if days else f"{hours:02}:{minutes:02}:{whole_s:02}"
