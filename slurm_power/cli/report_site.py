"""slurm-power report site: peaks, bill, energy and actions of the site over a period."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from slurm_power.adapters.site_record import read_site_period
from slurm_power.cli.config_option import config_option
from slurm_power.cli.report_options import FILE, opened_store, period, period_options, progress, write_text
from slurm_power.cli.report_sign import out_options, wanted_key, write_out
from slurm_power.cli.report_words import moment, percent, seconds
from slurm_power.cli.words import kw, kwh, printable
from slurm_power.compose import site_rates
from slurm_power.ess.site_period import SitePeriod
from slurm_power.site_config import read_site_config
from slurm_power.sla.canonical import rounded
from slurm_power.sla.report import iso

DAY_S = 86_400.0
ENERGIES = {
    "grid_import_watts": "imported from the grid",
    "it_watts": "drawn by the nodes",
    "inflexible_watts": "the rest of the site",
    "charge_watts": "taken by the battery",
    "discharge_watts": "given by the battery",
}

Row = tuple[str, ...]


@click.command()
@period_options
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@out_options
@click.option("--html", type=FILE, help="Write a page that needs nothing else.")
def site(
    since: float | None,
    until: float | None,
    config_path: Path,
    as_json: bool,
    out: Path | None,
    key_file: Path | None,
    html: Path | None,
) -> None:
    """The site over a period (default: the last day): peaks, energy, bill, and what was done why.

    Demand charges count the peaks of this period alone.
    """
    key = wanted_key(out, key_file)
    config = read_site_config(config_path, only=("store", "tariff"))
    rates = site_rates(config) if "tariff" in config.given else None
    when = period(since, until, default_s=DAY_S)
    with opened_store(config) as store, progress("reading the site's record", quiet=as_json) as tell:
        found = read_site_period(
            store, since_wall_s=when.begin_wall_s, until_wall_s=when.end_wall_s, rates=rates, tell=tell
        )
    written = write_out(site_json(found), out, key)
    if html is not None:
        write_text(html, site_page(found))
        written.append(html)
    if as_json:
        click.echo(json.dumps(site_json(found), indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(about(found), markup=False)
    for title, headings, rows in tables(found):
        shown = Table(*headings, title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for row in rows:
            shown.add_row(*(printable(cell) for cell in row))
        console.print(shown)
    for path in written:
        click.echo(f"Written: {path}")


def site_json(found: SitePeriod) -> dict[str, Any]:
    """Keys are frozen by a test."""
    content: dict[str, Any] = rounded(
        {
            "since": iso(found.since_wall_s),
            "until": iso(found.until_wall_s),
            "interval_s": found.interval_s,
            "known_fraction": found.known_fraction,
            "peaks": [{"start": iso(peak.start_wall_s), "watts": peak.watts} for peak in found.peaks],
            "joules": {name.removesuffix("_watts"): joules for name, joules in found.joules.items()},
            "over_target_s": found.over_target_s,
            "bill": None
            if found.bill is None
            else {
                "currency": found.bill.currency,
                "total": found.bill.total,
                "energy": found.bill.energy_cost,
                "demand": found.bill.demand_cost,
            },
            "actions": [
                {
                    "verb": one.verb,
                    "done": one.done,
                    "refused": one.refused,
                    "reasons": [{"reason": reason, "count": count} for reason, count in one.reasons],
                }
                for one in found.actions
            ],
            "shortfalls": [{"shortfall": text, "count": count} for text, count in found.shortfalls],
        }
    )
    return content


def about(found: SitePeriod) -> str:
    return (
        f"The site, {moment(found.since_wall_s)} to {moment(found.until_wall_s)}; its import is known for"
        f" {percent(found.known_fraction)} of the time."
    )


def tables(found: SitePeriod) -> Iterator[tuple[str, Row, list[Row]]]:
    """Title, headings, rows; the terminal and the page show the same."""
    peaks: list[Row] = [(moment(peak.start_wall_s), kw(peak.watts)) for peak in found.peaks]
    yield f"Highest metering intervals ({seconds(found.interval_s)})", ("began", "mean import"), peaks
    energy: list[Row] = [(words, kwh(found.joules[name])) for name, words in ENERGIES.items()]
    yield "Energy", ("what", "of what is known"), [*energy, ("time above the target", seconds(found.over_target_s))]
    if found.bill is not None:
        money = found.bill.currency
        bill = [("energy", found.bill.energy_cost), ("demand", found.bill.demand_cost), ("total", found.bill.total)]
        yield "Bill of this period", ("what", money), [(name, f"{value:,.2f}") for name, value in bill]
    if found.actions:
        rows: list[Row] = [
            (one.verb if place == 0 else "", str(one.done), str(one.refused), f"{count} x {reason}")
            for one in found.actions
            for place, (reason, count) in enumerate(one.reasons or (("no reason given", one.done + one.refused),))
        ]
        yield "What was done, and why", ("action", "done", "refused", "reasons"), rows
    if found.shortfalls:
        yield "What plans could not meet", ("times", "what"), [(str(count), text) for text, count in found.shortfalls]


def site_page(found: SitePeriod) -> str:
    from slurm_power.cli.report_page import page, table  # its colours need matplotlib, which takes a moment to load

    parts = [f"<header><h1>The site over a period</h1></header><p class='about'>{escape(about(found))}</p>"]
    for title, headings, rows in tables(found):
        parts.append(f"<h2>{escape(title)}</h2>" + table(headings, rows, numbers_from=len(headings)))
    return page("The site over a period", "\n".join(parts))
