"""slurm-power bill: what a recorded load costs under a published rate, line by line."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from slurm_power.adapters.rate_file import read_rate
from slurm_power.cli.controller_client import echo_json
from slurm_power.errors import ConfigError
from slurm_power.ess.bill import Bill, BilledInterval, BillLine, bill
from slurm_power.ess.rate_schedule import RateSchedule
from slurm_power.monitoring.load_table import LoadTable, interval_means, read_load_table

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("bill")
@click.option(
    "--load", "load_file", type=_FILE, required=True, help="CSV with a header: a column of time, one of power."
)
@click.option("--tariff", "tariff_file", type=_FILE, required=True, help="A rate as JSON, in URDB's format.")
@click.option("--tz", default="UTC", show_default=True, help="Zone of the tariff's calendar and of dates without one.")
@click.option(
    "--unit", type=click.Choice(["W", "kW", "MW", "GW"]), help="Of the power; default: from the column's name."
)
@click.option("--column", help="The power column, if it is not the first one of numbers.")
@click.option("--scale", default=1.0, show_default=True, help="Multiply the power by this.")
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="First day, in the zone.")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="Last day, in the zone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bill_command(
    load_file: Path,
    tariff_file: Path,
    tz: str,
    unit: str | None,
    column: str | None,
    scale: float,
    first: datetime | None,
    last: datetime | None,
    as_json: bool,
) -> None:
    """Bill a recorded load: energy, every demand component with the time of its peak, ratchets, fixed charges.

    Rows closer together than the tariff's metering interval are averaged over it. A ratchet looks back at the months
    of the file itself.
    """
    rates = read_rate(tariff_file, tz)
    with load_file.open(encoding="utf-8") as lines:
        table = read_load_table(lines, unit=unit, column=column, zone=rates.zone)
    begin_s = -math.inf if first is None else first.replace(tzinfo=rates.zone).timestamp()
    end_s = math.inf if last is None else (last + timedelta(days=1)).replace(tzinfo=rates.zone).timestamp()
    intervals = [i for i in _intervals(table, rates, scale) if begin_s <= i.start_wall_s < end_s]
    if not intervals:
        raise ConfigError(f"{load_file}: no rows between --from and --to")
    due = bill(intervals, tariff=rates)
    if as_json:
        echo_json({"rate": rates.name, "currency": due.currency, "total": due.total, **_as_json(due)})
        return
    _print(due, rates, table)


def _intervals(table: LoadTable, rates: RateSchedule, scale: float) -> list[BilledInterval]:
    """Import and export apart: watts below zero are export."""
    starts, watts = interval_means(table, interval_s=rates.metering_interval_s)
    length_s = max(table.step_s, rates.metering_interval_s)
    return [
        BilledInterval(start, length_s, max(0.0, w * scale) * length_s, max(0.0, -w * scale) * length_s)
        for start, w in zip(starts.tolist(), watts.tolist(), strict=True)
    ]


def _as_json(due: Bill) -> dict[str, object]:
    return {
        "peak_watts": due.peak_watts,
        "energy_joules": due.energy_joules,
        "lines": [asdict(line) for line in due.lines],
    }


def _print(due: Bill, rates: RateSchedule, table: LoadTable) -> None:
    console = Console(highlight=False)
    unit = table.unit or "no unit: taken as W"
    console.print(f"{rates.name}; load: column {table.column!r} ({unit}), every {table.step_s:g} s", markup=False)
    lines = Table("what", "amount", "price", due.currency, "peak at", box=box.SIMPLE_HEAD)
    for column in lines.columns[1:4]:
        column.justify = "right"
    for start_s, of_month in groupby(due.lines, lambda line: line.period_start_wall_s):
        month = list(of_month)
        lines.add_section()
        name = f"{datetime.fromtimestamp(start_s, rates.zone):%B %Y}"
        month_sum = f"{math.fsum(line.money for line in month):,.2f}"
        lines.add_row(name, "", "", month_sum, "", style="bold")
        for line in month:
            lines.add_row(*_row(line, rates))
    lines.add_section()
    lines.add_row("total", "", "", f"{due.total:,.2f}", "", style="bold")
    console.print(lines)
    for note in rates.notes:
        console.print(f"Note: {note}", markup=False, style="yellow")


def _row(line: BillLine, rates: RateSchedule) -> tuple[str, ...]:
    at = "" if line.peak_wall_s is None else f"{datetime.fromtimestamp(line.peak_wall_s, rates.zone):%a %d %H:%M}"
    name = f"  {line.name}" + (f" ({line.note})" if line.note else "")
    return name, f"{line.amount:,.0f} {line.unit}", f"{line.price:.5f}", f"{line.money:,.2f}", at
