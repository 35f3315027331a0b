"""slurm-power status: the site now, each number with its age."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from slurm_power.cli.controller_client import ask, asking_options, echo_json
from slurm_power.cli.words import age, clock_time, kw, kwh, percent, printable


@click.command()
@asking_options
@click.option("--gpus", "show_gpus", is_flag=True, help="One line for every GPU: draw, cap and who set the cap.")
def status(config_path: Path, url: str | None, as_json: bool, show_gpus: bool) -> None:
    """Show grid, battery, IT load and target, each with its age."""
    content = ask("status", config_path=config_path, url=url)
    if as_json:
        echo_json(content)
        return
    console = Console(highlight=False)
    console.print(_site_table(content))
    if show_gpus:
        console.print(_gpu_table(content["nodes"]))
    for name, wish in content["overrides"].items():
        if wish is not None:
            console.print(_wish(name, wish), style="yellow", markup=False)
    for heading, key, style in (("Clamped", "clamped", "yellow"), ("Shortfall", "shortfalls", "yellow")):
        for line in content[key]:
            console.print(f"{heading}: {line}", style=style, markup=False)
    for note in content["notes"]:
        console.print(note, markup=False)
    for device, failure in content["failures"].items():
        console.print(f"{device}: {failure}", style="red", markup=False)


def _site_table(content: dict[str, Any]) -> Table:
    grid, ess, it, interval = (content[key] or {} for key in ("grid", "ess", "it", "interval"))
    table = Table("", "now", "age", title=f"slurm-power ({content['mode']})", title_justify="left")
    table.add_row("Grid import", kw(grid.get("import_watts")), age(grid.get("age_s")))
    table.add_row("Open interval's average", kw(interval.get("average_watts")), "")
    table.add_row("Target", kw(content["target_watts"]), age(content["tick_age_s"]))
    table.add_row("Peak of this billing period", kw(content["peak_watts"]), "")
    table.add_row("IT draw", kw(it.get("draw_watts")), age(it.get("age_s")))
    stored = None if not ess else ess["stored_fraction"] * ess["capacity_joules"]
    table.add_row("Battery stored", f"{kwh(stored)} ({percent(ess.get('stored_fraction'))})", age(ess.get("age_s")))
    table.add_row("Battery gives", kw(ess.get("discharge_watts")), age(ess.get("age_s")))
    table.add_row("Battery takes", kw(ess.get("charge_watts")), age(ess.get("age_s")))
    return table


def _wish(name: str, wish: dict[str, Any]) -> str:
    """What an admin has asked for beyond the config."""
    what = f"target {kw(wish['watts'])}" if name == "target" else name
    until = "" if wish["until_wall_s"] is None else f" until {clock_time(wish['until_wall_s'])}"
    return printable(f"Asked for: {what}{until}, by {wish['who']}: {wish['why']}")


def _gpu_table(nodes: list[dict[str, Any]]) -> Table:
    table = Table("node", "GPU", "draw", "cap", "set by", "job", "age")
    for node in nodes:
        for gpu in node["gpus"]:
            cap_watts, job_id = gpu["cap_watts"], gpu["job_id"]
            table.add_row(
                node["node_name"],
                gpu["uuid"],
                gpu["error"] or kw(gpu["draw_watts"]),
                "-" if cap_watts is None else f"{cap_watts:.0f} W",
                gpu["cap_source"],
                "-" if job_id is None else str(job_id),
                age(node["age_s"]),
            )
    return table
