"""slurm-power jobs write-back: a finished job's joules into Slurm's accounting, for etc/epilog.d."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast, get_args

import click

from slurm_power.adapters.energy_config import EnergyConfig
from slurm_power.adapters.energy_ledger import EnergyLedger, chunks
from slurm_power.adapters.energy_records import EnergyRecords
from slurm_power.adapters.energy_write_back import EnergyWriteBack, Target
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.cli.config_option import config_option
from slurm_power.cli.report_options import opened_store, period_options
from slurm_power.errors import ConfigError
from slurm_power.monitoring.energy_account import EnergyAccount
from slurm_power.site_config import SiteConfig, read_site_config

_LOOK_BACK_S = 7 * 86_400.0


@click.command("write-back")
@click.argument("job_id", type=int)
@config_option
@click.option(
    "--to",
    type=click.Choice(get_args(Target)),
    default="auto",
    show_default=True,
    help="Where to: TRES (Slurm 25.11 and newer; it can be set once), AdminComment, Comment. auto: TRES where it can.",
)
@period_options
@click.option("--wait", "wait_s", default=0.0, help="Wait first: agents hand on their last points after some seconds.")
@click.option("--dry-run", is_flag=True, help="Only say what would be set.")
def write_back(
    job_id: int, config_path: Path, to: str, since: float | None, until: float | None, wait_s: float, dry_run: bool
) -> None:
    """Write the energy of the finished job JOB_ID, all its attempts, into Slurm's accounting (needs slurmdbd)."""
    time.sleep(wait_s)
    config = read_site_config(config_path, only=("store", "slurm", "energy"))
    now_s = time.time()
    begin_s = now_s - _LOOK_BACK_S if since is None else since
    joules = _joules(config, job_id, begin_s, now_s if until is None else until)
    setting = EnergyWriteBack(config.table(SlurmConfig)).write(job_id, joules, to=cast(Target, to), dry_run=dry_run)
    click.echo(f"job {job_id}: {'would set' if dry_run else 'set'} {setting}")


def _joules(config: SiteConfig, job_id: int, begin_s: float, end_s: float) -> float:
    """Of the GPUs and, as [energy] says, their share of the nodes. Raise ConfigError for a job that held none then."""
    account, apart = EnergyAccount(), config.table(EnergyConfig).node_remainder == "apart"
    with opened_store(config) as store:
        ledger = EnergyLedger(EnergyRecords(store), apart=apart)
        for first_s, last_s in chunks(begin_s, end_s):
            account += ledger.account(first_s, last_s, facts={}, now_wall_s=end_s)
    job = account.jobs.get(job_id)
    if job is None:
        raise ConfigError(f"job {job_id}: no agent saw it hold a GPU in that time")
    return job.spent.joules
