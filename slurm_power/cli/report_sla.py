"""slurm-power report sla: the quality of the GPU service of one job, node, account, or the site."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from slurm_power import __version__
from slurm_power.adapters import quality_report
from slurm_power.adapters.energy_records import EnergyRecords
from slurm_power.adapters.job_facts import JobFacts, SlurmJobFacts
from slurm_power.adapters.quality_samples import StoredQuality
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.cli.config_option import config_option
from slurm_power.cli.report_options import FILE, opened_store, period, period_options, progress, write_text
from slurm_power.cli.report_sign import out_options, wanted_key, write_out
from slurm_power.cli.report_text import print_quality
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_store import TelemetryStore
from slurm_power.site_config import SiteConfig, read_dataclass, read_site_config
from slurm_power.sla.board import Window
from slurm_power.sla.report import QualityReport, report_json
from slurm_power.sla.thresholds import QualityThresholds

DAY_S = 86_400.0
LOOK_BACK_S = 30 * DAY_S
ON_ITS_WAY_S = 15.0
"""Agents hand samples over every few seconds: those of just now are not in the store yet."""


@click.command()
@click.option("--job", "job_id", type=click.IntRange(1), help="One job, all its GPUs and attempts.")
@click.option("--node", help="One node, all its GPUs, whoever held them.")
@click.option("--account", help="All jobs of one account.")
@period_options
@click.option("--thresholds", "thresholds_file", type=FILE, help="What a good service is; see etc/sla-thresholds.toml.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@out_options
@click.option("--html", type=FILE, help="Write a page that needs nothing else.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Write the curves here, as PNG.")
def sla(
    job_id: int | None,
    node: str | None,
    account: str | None,
    since: float | None,
    until: float | None,
    thresholds_file: Path | None,
    config_path: Path,
    as_json: bool,
    out: Path | None,
    html: Path | None,
    plots: Path | None,
    key_file: Path | None,
) -> None:
    """Prove the service: clocks, throttling, thermal headroom, power, each with a verdict and what to do.

    Without --job, --node and --account: the whole site. Default period: the job's life, else the last day.
    What the operator's or the job's own power cap did is shown apart from what the infrastructure did.
    """
    if sum(one is not None for one in (job_id, node, account)) > 1:
        raise click.UsageError("only one of --job, --node and --account")
    key = wanted_key(out, key_file)
    config = read_site_config(config_path, only=("store", "slurm"))
    thresholds = read_thresholds(thresholds_file)
    report = make(
        config,
        job_id=job_id,
        node=node,
        account=account,
        since=since,
        until=until,
        thresholds=thresholds,
        quiet=as_json,
    )
    content = report_json(report, made_wall_s=time.time(), made_by=f"slurm-power {__version__}")
    written = [*write_out(content, out, key), *write_pictures(report, content, html=html, plots=plots)]
    if as_json:
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    print_quality(report, Console(highlight=False))
    for path in written:
        click.echo(f"Written: {path}")


def read_thresholds(path: Path | None) -> QualityThresholds:
    return QualityThresholds() if path is None else read_dataclass(path, QualityThresholds)


def make(
    config: SiteConfig,
    *,
    job_id: int | None,
    node: str | None,
    account: str | None,
    since: float | None,
    until: float | None,
    thresholds: QualityThresholds,
    quiet: bool,
) -> QualityReport:
    slurm = SlurmJobFacts(config.table(SlurmConfig))
    with opened_store(config) as store, progress("reading samples", quiet=quiet) as tell:
        stored = StoredQuality(store)
        if job_id is not None:
            facts = slurm.job(job_id) or _remembered(store, period(since, until, default_s=LOOK_BACK_S)).get(job_id)
            life = period(*_life(facts, since, until), default_s=LOOK_BACK_S)
            return quality_report.of_job(stored, job_id, facts, period=life, thresholds=thresholds, tell=tell)
        when = period(since, time.time() - ON_ITS_WAY_S if until is None else until, default_s=DAY_S)
        if account is not None:
            jobs = _jobs_of(account, slurm, store, when)
            return quality_report.of_account(stored, account, jobs, period=when, thresholds=thresholds, tell=tell)
        return quality_report.of_nodes(stored, node, period=when, thresholds=thresholds, tell=tell)


def _jobs_of(account: str, slurm: SlurmJobFacts, store: TelemetryStore, when: Window) -> list[JobFacts]:
    """By accounting; where there is none, by what the controller wrote down of the jobs it saw."""
    try:
        return slurm.of_account(account, since_wall_s=when.begin_wall_s, until_wall_s=when.end_wall_s)
    except Unavailable:
        return [one for one in _remembered(store, when).values() if one.account == account]


def _remembered(store: TelemetryStore, when: Window) -> dict[int, JobFacts]:
    """The controller writes down each job once a day at least."""
    known = EnergyRecords(store).facts(when.begin_wall_s - DAY_S, when.end_wall_s + DAY_S)
    return {
        job_id: JobFacts(job_id, one.user_name, one.account, one.name, None, max(one.ends_wall_s, default=None), ())
        for job_id, one in known.items()
    }


def write_pictures(
    report: QualityReport, content: dict[str, Any], *, html: Path | None, plots: Path | None, first: str = ""
) -> list[Path]:
    """`first`: HTML that stands above the verdicts."""
    written = []
    if html is not None:
        from slurm_power.cli.report_html import quality_page  # matplotlib takes a moment to load

        write_text(html, quality_page(report, content, first=first))
        written.append(html)
    if plots is not None:
        from slurm_power.cli.report_plots import write_pngs

        written += write_pngs(report, plots)
    return written


def _life(facts: JobFacts | None, since: float | None, until: float | None) -> tuple[float | None, float | None]:
    """From its submission to its end, as far as Slurm knows them. Of a job that runs: what has reached the store."""
    if facts is not None and since is None:
        since = facts.submit_wall_s
    if until is None:
        now_s = time.time()
        end_s = None if facts is None else facts.end_wall_s
        until = now_s - ON_ITS_WAY_S if end_s is None or end_s >= now_s else end_s + ON_ITS_WAY_S
    return since, until
