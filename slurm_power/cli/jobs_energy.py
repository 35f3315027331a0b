"""slurm-power jobs energy: the joules of every job, what they rest on, cost and emitted."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from slurm_power.adapters.energy_config import EnergyConfig
from slurm_power.adapters.energy_ledger import EnergyLedger, chunks
from slurm_power.adapters.energy_records import CommandRun, EnergyRecords, KnownJob
from slurm_power.adapters.job_facts import SlurmJobFacts
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.cli.config_option import config_option
from slurm_power.cli.controller_client import echo_json
from slurm_power.cli.jobs_energy_rows import Found, JobRow, as_json, grouped, job_rows, write_csv
from slurm_power.cli.jobs_energy_table import print_jobs
from slurm_power.cli.report_options import opened_store, period_options, progress
from slurm_power.compose import site_rates
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.ess.guard import SiteLimits
from slurm_power.monitoring.energy_account import EnergyAccount
from slurm_power.site_config import SiteConfig, read_site_config

REMEMBERED_S = 2 * 86_400.0
"""The controller writes down what it knows of each job once a day at least."""

_TABLES = ("site", "tariff", "store", "slurm", "energy")


@click.command()
@config_option
@click.option("--user", help="Only jobs of this user (name or uid).")
@click.option("--account", help="Only jobs of this Slurm account.")
@click.option("--job", "job_id", type=int, help="Only this job.")
@period_options
@click.option(
    "--by", type=click.Choice(["job", "user", "account"]), default="job", show_default=True, help="Sum over these."
)
@click.option("--attempts", is_flag=True, help="List every attempt of a requeued job, and steps that were measured.")
@click.option("--check", is_flag=True, help="Hold the sum against what the nodes drew.")
@click.option("--json", "form", flag_value="json", help="Print JSON (joules, seconds, watts, grams).")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, one line for each row.")
def energy(
    config_path: Path,
    user: str | None,
    account: str | None,
    job_id: int | None,
    since: float | None,
    until: float | None,
    by: str,
    attempts: bool,
    check: bool,
    form: str | None,
) -> None:
    """Energy of jobs within a period (default: since midnight), in the manner of sacct.

    GPUs by their energy counters; where a counter was missing, reset or wrong, power is integrated, and what is not
    known is said, never filled. CPUs and memory by RAPL where a node has it, the rest of the node as the site says,
    both shared out by GPUs. What no job held is reported beside. Only what lies within the period counts: a job that
    began before it shows the part inside.
    """
    config = read_site_config(config_path, only=_TABLES)
    now_s = time.time()
    begin_s = _midnight(now_s) if since is None else since
    end_s = now_s if until is None else until
    if begin_s >= end_s:
        raise ConfigError("--since: must be before --until")
    found = _find(config, begin_s, end_s, now_s=now_s, check=check, quiet=form is not None)
    rows = [row for row in job_rows(found) if _wanted(row, user, account, job_id)]
    if form == "json":
        echo_json(as_json(found, rows if by == "job" else grouped(rows, by)))
    elif form == "csv":
        write_csv(sys.stdout, rows if by == "job" else grouped(rows, by))
    else:
        print_jobs(
            found,
            rows if by == "job" else grouped(rows, by),
            attempts=attempts,
            whole=len(rows) == len(found.account.jobs),
        )


def _wanted(row: JobRow, user: str | None, account: str | None, job_id: int | None) -> bool:
    of_user = user is None or user in (row.user, str(row.uid))
    return of_user and account in (None, row.account) and job_id in (None, row.job_id)


def _find(config: SiteConfig, begin_s: float, end_s: float, *, now_s: float, check: bool, quiet: bool) -> Found:
    rates = site_rates(config) if "tariff" in config.given else None
    pue = config.table(SiteLimits).pue if "site" in config.given else 1.0
    chosen = config.table(EnergyConfig)
    with opened_store(config) as store:
        records = EnergyRecords(store)
        ledger = EnergyLedger(
            records, apart=chosen.node_remainder == "apart", rates=rates, pue=pue, intensity=chosen.intensity()
        )
        known = _known_jobs(config, records, begin_s, end_s)
        account, checked = EnergyAccount(), None
        with progress("reading the energy marks", quiet=quiet) as show:
            for first_s, last_s in chunks(begin_s, end_s):
                account += ledger.account(first_s, last_s, facts=known, now_wall_s=now_s)
                show((last_s - begin_s) / (end_s - begin_s))
        if check:
            checked = ledger.check(begin_s, end_s)
        runs: list[CommandRun] = records.runs(begin_s, end_s)
    return Found(begin_s, end_s, account, known, runs, checked, rates.currency if rates else None, pue)


def _known_jobs(config: SiteConfig, records: EnergyRecords, begin_s: float, end_s: float) -> dict[int, KnownJob]:
    """As the controller wrote them down; sacct knows more, where there is one."""
    known = records.facts(begin_s - REMEMBERED_S, end_s + REMEMBERED_S)
    try:
        told = SlurmJobFacts(config.table(SlurmConfig)).of_period(since_wall_s=begin_s, until_wall_s=end_s)
    except Unavailable:
        return known
    for one in told:
        old = known.get(one.job_id, KnownJob())
        ends = {*old.ends_wall_s, *([one.end_wall_s] if one.end_wall_s is not None else [])}
        known[one.job_id] = KnownJob(
            one.user or old.user_name,
            one.account or old.account,
            one.job_name or old.name,
            old.partition,
            old.state,
            tuple(sorted(ends)),
        )
    return known


def _midnight(now_s: float) -> float:
    day = time.localtime(now_s)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))
