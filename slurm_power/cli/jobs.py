"""slurm-power jobs: why each job waits or runs slower."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from slurm_power.cli.controller_client import ask, asking_options, echo_json
from slurm_power.cli.lazy import LazyCommands
from slurm_power.cli.words import clock_time, printable

COMMANDS = {
    "energy": "slurm_power.cli.jobs_energy:energy",
    "write-back": "slurm_power.cli.jobs_write_back:write_back",
}


@click.group(cls=LazyCommands, places=COMMANDS, invoke_without_command=True)
@asking_options
@click.pass_context
def jobs(ctx: click.Context, config_path: Path, url: str | None, as_json: bool) -> None:
    """List pending and running jobs: class, watts, cap, and why each waits or is capped."""
    if ctx.invoked_subcommand is not None:
        return
    content = ask("jobs", config_path=config_path, url=url)
    if as_json:
        echo_json(content)
        return
    table = Table("job", "user", "name", "class", "state", "licences", "cap", "waits until", "why")
    for job in content:
        table.add_row(
            str(job["job_id"]),
            printable(job["user_name"]),
            printable(job["name"]),
            job["power_class"] or "(default)",
            job["state"],
            ",".join(f"{name}:{count}" for name, count in job["licenses"].items()) or "-",
            "-" if job["capped_watts"] is None else f"{job['capped_watts']:.0f} W",
            clock_time(job["deferred_until_wall_s"]),
            job["why"],
        )
    console = Console(highlight=False, markup=False)
    console.print(table if content else "No job is pending or running.")
