"""slurm-power report: proofs and reports that can be handed to a customer, and checked by one."""

from __future__ import annotations

import click

from slurm_power.cli.lazy import LazyCommands

COMMANDS = {
    "sla": "slurm_power.cli.report_sla:sla",
    "job": "slurm_power.cli.report_job:job",
    "site": "slurm_power.cli.report_site:site",
    "verify": "slurm_power.cli.report_verify:verify",
    "keygen": "slurm_power.cli.report_verify:keygen",
}


@click.group(cls=LazyCommands, places=COMMANDS)
def report() -> None:
    """Quality of the GPU service, one job on one screen, the site over a period."""
