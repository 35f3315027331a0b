"""slurm-power replay: what the planner would have made of a recorded load, or of a recorded stream of jobs."""

from __future__ import annotations

import click

from slurm_power.cli.lazy import LazyCommands

COMMANDS = {
    "load": "slurm_power.cli.replay_load:load_command",
    "jobs": "slurm_power.cli.replay_jobs:jobs_command",
}


@click.group(cls=LazyCommands, places=COMMANDS)
def replay() -> None:
    """Try the planner on a record: loads with a battery, jobs on a cluster in memory."""
