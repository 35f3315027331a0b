"""slurm-power ess: the battery, what it was told, and its schedule."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from slurm_power.cli.controller_client import ask, asking_options, echo_json
from slurm_power.cli.words import age, clock_time, kw, kwh, percent


@click.command()
@asking_options
def ess(config_path: Path, url: str | None, as_json: bool) -> None:
    """Show the battery and its planned schedule."""
    content = ask("ess", config_path=config_path, url=url)
    if as_json:
        echo_json(content)
        return
    console = Console(highlight=False)
    reading, setpoint = content["ess"], content["setpoint"]
    if reading is None:
        console.print("The PCS has not answered yet (slurm-power status says why).")
    else:
        stored = reading["stored_fraction"] * reading["capacity_joules"]
        console.print(f"Stored {kwh(stored)} ({percent(reading['stored_fraction'])}), age {age(reading['age_s'])}")
        console.print(f"Available by its own word {kwh(reading['available_joules'])}")
        console.print(f"Health {percent(reading['health_fraction'])}; remote control {reading['remote_allowed']}")
        console.print(f"Gives {kw(reading['discharge_watts'])}, takes {kw(reading['charge_watts'])}")
        for alarm in reading["alarms"]:
            console.print(f"Alarm: {alarm}", style="red", markup=False)
    if setpoint is not None:
        console.print(f"Told to give {kw(setpoint['discharge_watts'])}, take {kw(setpoint['charge_watts'])}")
    for line in content["clamped"]:
        console.print(f"Clamped: {line}", style="yellow", markup=False)
    if content["schedule"]:
        table = Table("slot", "gives", "takes", "stored at its end")
        for slot in content["schedule"]:
            table.add_row(
                clock_time(slot["start_wall_s"]),
                kw(slot["discharge_watts"]),
                kw(slot["charge_watts"]),
                kwh(slot["stored_joules"]),
            )
        console.print(table)
