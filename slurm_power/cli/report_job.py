"""slurm-power report job: one job on one screen, with what to do about it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
from rich.console import Console

from slurm_power.adapters.energy_config import EnergyConfig
from slurm_power.adapters.energy_ledger import EnergyLedger, chunks
from slurm_power.adapters.energy_records import EnergyRecords
from slurm_power.adapters.site_record import decisions_about_job
from slurm_power.cli.config_option import config_option
from slurm_power.cli.report_job_text import JobScreen, facts_table, print_screen, screen_json
from slurm_power.cli.report_options import FILE, opened_store, period_options
from slurm_power.cli.report_sign import out_options, wanted_key, write_out
from slurm_power.cli.report_sla import make, read_thresholds, write_pictures
from slurm_power.compose import site_rates
from slurm_power.monitoring.energy_account import EnergyAccount
from slurm_power.site_config import SiteConfig, read_site_config
from slurm_power.sla.report import QualityReport

_TABLES = ("store", "slurm", "tariff", "energy")


@click.command()
@click.argument("job_id", metavar="JOB", type=click.IntRange(1))
@period_options
@config_option
@click.option("--thresholds", "thresholds_file", type=FILE, help="What a good service is; see etc/sla-thresholds.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@out_options
@click.option("--html", type=FILE, help="Write a page that needs nothing else.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Write the curves here, as PNG.")
def job(
    job_id: int,
    since: float | None,
    until: float | None,
    config_path: Path,
    thresholds_file: Path | None,
    as_json: bool,
    out: Path | None,
    key_file: Path | None,
    html: Path | None,
    plots: Path | None,
) -> None:
    """One job on one screen: how its GPUs were used, its energy, what held it back, and what to change."""
    key = wanted_key(out, key_file)
    config = read_site_config(config_path, only=_TABLES)
    report = make(
        config,
        job_id=job_id,
        node=None,
        account=None,
        since=since,
        until=until,
        thresholds=read_thresholds(thresholds_file),
        quiet=as_json,
    )
    screen = _screen(config, report, job_id)
    content = screen_json(screen)
    written = write_out(content, out, key)
    written += write_pictures(
        report, content["quality"], html=html, plots=plots, first=facts_table(screen) if html else ""
    )
    if as_json:
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    print_screen(screen, Console(highlight=False))
    for path in written:
        click.echo(f"Written: {path}")


def _screen(config: SiteConfig, report: QualityReport, job_id: int) -> JobScreen:
    rates = site_rates(config) if "tariff" in config.given else None
    chosen = config.table(EnergyConfig)
    begin_s, end_s = report.scope.since_wall_s, report.scope.until_wall_s
    with opened_store(config) as store:
        records = EnergyRecords(store)
        ledger = EnergyLedger(
            records, apart=chosen.node_remainder == "apart", rates=rates, intensity=chosen.intensity()
        )
        account = EnergyAccount()
        for first_s, last_s in chunks(begin_s, end_s):
            account += ledger.account(first_s, last_s, facts={}, now_wall_s=time.time())
        decisions = decisions_about_job(store, job_id, since_wall_s=begin_s - 3600.0, until_wall_s=end_s)
    own = account.jobs.get(job_id)
    return JobScreen(report, None if own is None else own.spent, rates.currency if rates else None, decisions)
