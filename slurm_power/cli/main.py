"""slurm-power: the admin's command. Commands print and draw; they never decide."""

from __future__ import annotations

import sys
from typing import Any

import click

from slurm_power import __version__
from slurm_power.cli.lazy import LazyCommands
from slurm_power.errors import SlurmPowerError

COMMANDS = {
    "status": "slurm_power.cli.status:status",
    "plan": "slurm_power.cli.plan:plan",
    "bill": "slurm_power.cli.bill:bill_command",
    "forecast": "slurm_power.cli.forecast:forecast",
    "replay": "slurm_power.cli.replay:replay",
    "llm": "slurm_power.cli.llm:llm",
    "profile": "slurm_power.cli.profile:profile",
    "jobs": "slurm_power.cli.jobs:jobs",
    "report": "slurm_power.cli.report:report",
    "ess": "slurm_power.cli.ess:ess",
    "telemetry": "slurm_power.cli.telemetry:telemetry",
    "hold": "slurm_power.cli.hold:hold",
    "observe": "slurm_power.cli.hold:observe",
    "target": "slurm_power.cli.target:target",
    "release": "slurm_power.cli.release:release",
    "config": "slurm_power.cli.config:config",
    "cluster": "slurm_power.cli.cluster:cluster",
    "demo": "slurm_power.cli.demo:demo",
}
"""Name -> where it lives; loaded only when called, so that `slurm-power status` starts fast."""


@click.group(cls=LazyCommands, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="slurm-power")
def slurm_power() -> None:
    """Keep a Slurm cluster of AI nodes inside its power promise.

    Exit codes: 0 done, 2 wrong usage, 3 a config or option to mend, 4 not permitted, 5 a device
    refused or is gone, 6 something did not answer (try again).
    """


def run_command(command: click.Command, **extra: Any) -> None:
    """Run a click command as a program: our errors become one line and their exit code."""
    try:
        command.main(**extra)
    except SlurmPowerError as error:
        click.echo(f"{command.name or 'slurm-power'}: {error}", err=True)
        sys.exit(error.exit_code)


def main() -> None:
    run_command(slurm_power, prog_name="slurm-power")
