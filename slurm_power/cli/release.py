"""slurm-power release: give back all that power management took, with or without a running controller."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click

from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.cli.config_option import config_option
from slurm_power.cli.controller_client import echo_json
from slurm_power.cli.words import printable
from slurm_power.compose import slurm_client
from slurm_power.daemons.slurm_actions import apply_relocation
from slurm_power.errors import DeviceRefused
from slurm_power.relocation.planner import undo_relocation
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.site_config import read_site_config


@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Say what would be given back, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def release(config_path: Path, dry_run: bool, as_json: bool) -> None:
    """Delete our licence reservations, start deferred jobs, give capped jobs their watts back.

    Only what carries our mark is touched. Stop slurm-powerd first (or let it observe), or it will plan anew;
    the agents' caps follow within one lease.
    """
    config = read_site_config(config_path, only={"slurm", "relocation"})
    slurm, wall_s = slurm_client(config.table(SlurmConfig)), time.time()
    plan = undo_relocation(
        jobs=slurm.jobs(),
        reservations=slurm.license_reservations(),
        wall_s=wall_s,
        config=config.table(RelocationConfig),
    )
    if dry_run:
        subjects = [f"reservation {action.reservation.name}" for action in plan.reservations]
        subjects += [f"job {action.job_id}" for action in plan.jobs]
        if as_json:
            echo_json([{"subject": subject} for subject in subjects])
        else:
            click.echo("\n".join(f"would give back: {subject}" for subject in subjects) or "nothing carries our mark")
        return
    events = apply_relocation(slurm, plan, wall_s=wall_s)
    if as_json:
        echo_json([asdict(event) for event in events])
    else:
        lines = [f"{event.verb} {event.subject}{f': {event.failure}' if event.failure else ''}" for event in events]
        click.echo("\n".join(map(printable, lines)) or "nothing carries our mark")
    refused = [event.subject for event in events if event.failure]
    if refused:
        raise DeviceRefused(f"Slurm refused {len(refused)} of {len(events)}: {', '.join(refused)}")
