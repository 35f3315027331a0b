"""slurm-power plan: what the controller intends, slot by slot."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from slurm_power.cli.controller_client import ask, asking_options, echo_json
from slurm_power.cli.words import clock_time, kw, kwh


@click.command()
@asking_options
def plan(config_path: Path, url: str | None, as_json: bool) -> None:
    """Show the dispatch plan: target, battery schedule and the envelope left for IT."""
    content = ask("plan", config_path=config_path, url=url)
    if as_json:
        echo_json(content)
        return
    console = Console(highlight=False)
    for device, failure in content["failures"].items():
        console.print(f"{device}: {failure}", style="red", markup=False)
    made = content["plan"]
    if made is None:
        console.print("No plan yet: the controller has not seen fresh readings (slurm-power status says which).")
        return
    table = Table("slot", "grid", "building", "IT wanted", "IT held back", "envelope", "battery", "stored", "price/kWh")
    table.title = f"Target {kw(made['target_watts'])}, made {clock_time(made['made_wall_s'])}"
    for slot in made["slots"]:
        battery = (
            f"gives {kw(slot['discharge_watts'])}"
            if slot["discharge_watts"] > 1
            else f"takes {kw(slot['charge_watts'])}"
        )
        table.add_row(
            clock_time(slot["start_wall_s"]),
            kw(slot["grid_import_watts"]),
            kw(slot["inflexible_watts"]),
            kw(slot["it_wanted_watts"]),
            kw(slot["it_shed_watts"]),
            kw(slot["envelope_watts"]),
            battery if slot["discharge_watts"] > 1 or slot["charge_watts"] > 1 else "stands by",
            kwh(slot["stored_joules"]),
            f"{slot['price_per_kwh']:.3f}",
        )
    console.print(table)
    for line in made["shortfalls"]:
        console.print(f"Shortfall: {line}", style="yellow", markup=False)
