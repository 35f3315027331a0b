"""slurm-power profile: measure what a service takes in seconds and watts."""

from __future__ import annotations

import click

from slurm_power.cli.lazy import LazyCommands

COMMANDS = {"serve": "slurm_power.cli.profile_serve:serve"}


@click.group(cls=LazyCommands, places=COMMANDS)
def profile() -> None:
    """Measure a service on this machine, for the managers that decide by it."""
