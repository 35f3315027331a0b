"""slurm-power replay jobs: a recorded stream of jobs on a cluster in memory, with or without a power limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from slurm_power.cli.controller_client import echo_json
from slurm_power.errors import ConfigError
from slurm_power.ess.grid_event import GridEvent
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.replay import twin
from slurm_power.replay.curves import assumed_curve
from slurm_power.replay.policy import NoPolicy, Policy
from slurm_power.replay.results import Summary
from slurm_power.replay.settings import ReplayConfig, even_nodes, replay_config
from slurm_power.replay.site_policy import SitePolicy, SiteSetup
from slurm_power.replay.trace import Trace, scaled
from slurm_power.replay.trace_openb import read_openb_pods
from slurm_power.replay.trace_sacct import read_sacct
from slurm_power.replay.trace_swf import read_swf

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_READERS: Mapping[str, Callable[..., Trace]] = {"openb": read_openb_pods, "sacct": read_sacct, "swf": read_swf}


@click.command("jobs")
@click.argument("trace_file", metavar="FILE", type=_FILE)
@click.option("--format", "kind", type=click.Choice(list(_READERS)), required=True, help="How the file is written.")
@click.option("--gpus", type=click.IntRange(1), required=True, help="GPUs of the cluster in memory.")
@click.option("--gpus-per-node", type=click.IntRange(1), default=8, show_default=True)
@click.option(
    "--load", "load_fraction", type=click.FloatRange(0.01, 5), help="Scale the stream to this share of the GPUs."
)
@click.option("--gpu-watts", type=click.FloatRange(50), default=700.0, show_default=True, help="Of a busy GPU.")
@click.option(
    "--node-watts", type=click.FloatRange(0), default=800.0, show_default=True, help="Of a node beside its GPUs."
)
@click.option(
    "--limit-kw",
    type=click.FloatRange(0.1),
    help="Keep the IT load at or under this, by caps and the queue; from the second hour on.",
)
@click.option("--days", type=click.FloatRange(0.01), help="Stop after so many simulated days.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def jobs_command(
    trace_file: Path,
    kind: str,
    gpus: int,
    gpus_per_node: int,
    load_fraction: float | None,
    gpu_watts: float,
    node_watts: float,
    limit_kw: float | None,
    days: float | None,
    as_json: bool,
) -> None:
    """Run a recorded stream of jobs on a cluster in memory, FCFS with EASY backfill over GPUs and watts.

    With --limit-kw the controller's own code caps running jobs and holds waiting ones back; firm jobs are left alone.
    """
    if gpus % gpus_per_node:
        raise ConfigError(f"--gpus {gpus}: must be a multiple of --gpus-per-node {gpus_per_node}")
    trace = _trace(trace_file, kind)
    if load_fraction is not None:
        trace = scaled(trace, gpus=gpus, load_fraction=load_fraction)
    config, policy = _cluster(gpus, gpus_per_node, gpu_watts, node_watts, limit_kw)
    until_s = None if days is None else days * 86_400.0
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as bar:
        task = bar.add_task("jobs", total=len(trace.jobs))
        result = twin.replay(
            trace, config, policy, until_s=until_s, progress=lambda now_s, ended: bar.update(task, completed=ended)
        )
    summary = result.summary()
    if as_json:
        content = asdict(summary) | {"classes": {str(k.value): asdict(v) for k, v in summary.classes.items()}}
        echo_json({"trace": list(trace.in_words()), **content})
        return
    _print(trace.in_words(), summary)


def _trace(file: Path, kind: str) -> Trace:
    with file.open(encoding="utf-8", errors="replace") as lines:
        return _READERS[kind](lines)


def _cluster(
    gpus: int, gpus_per_node: int, gpu_watts: float, node_watts: float, limit_kw: float | None
) -> tuple[ReplayConfig, Policy]:
    """The cluster, and who decides on it."""
    nodes = gpus // gpus_per_node
    most = math.ceil(gpus * gpu_watts + nodes * node_watts)
    relocation = RelocationConfig(
        license_total_watts=most,
        gpu_max_watts=gpu_watts,
        gpu_idle_watts=0.1 * gpu_watts,
        min_gpu_cap_watts=0.3 * gpu_watts,
        node_base_watts=node_watts,
        cap_release_margin_watts=0.0,
    )
    config = replay_config(relocation, even_nodes(nodes, gpus_per_node), assumed_curve(relocation))
    if limit_kw is None:
        return config, NoPolicy()
    always = GridEvent(name="--limit-kw", start_wall_s=0.0, duration_s=1e9, limit_watts=1000 * limit_kw)
    setup = SiteSetup(
        start_wall_s=0.0,
        rates=Tariff(energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.0),), demand_price_per_kw=0.0),
        site=SiteLimits(grid_limit_watts=10.0 * most, it_max_watts=float(most), pue=1.0),
        battery=None,
        planner=PlannerConfig(slot_s=config.slot_s, headroom_fraction=0.0),
        relocation=relocation,
        events=(always,),
    )
    return config, SitePolicy(setup, NaiveForecaster(ForecastConfig(), slot_s=config.slot_s))


def _print(words: Sequence[str], summary: Summary) -> None:
    console = Console(highlight=False)
    for line in words:
        console.print(line, markup=False)
    table = Table("class", "jobs", "ended", "wait p50", "wait p95", "worst slowdown", box=box.SIMPLE_HEAD)
    for power_class, one in summary.classes.items():
        slowdown = one.worst_slowdown_fraction
        table.add_row(
            power_class.value,
            str(one.jobs),
            str(one.ended),
            _hours(one.wait_p50_s),
            _hours(one.wait_p95_s),
            "-" if slowdown is None else f"{slowdown:.1%}",
        )
    console.print(table)
    console.print(
        f"peak {summary.peak_it_watts / 1000:,.1f} kW (mean of a slot), {summary.it_joules / 3.6e9:,.2f} MWh, "
        f"GPUs in use {summary.utilisation_fraction:.0%}; GPU hours capped {summary.gpu_hours_capped:,.1f}, lost "
        f"{summary.gpu_hours_lost:,.1f}; ended by their limit {summary.timed_out}; firm jobs touched "
        f"{summary.firm_jobs_touched}"
    )


def _hours(seconds: float | None) -> str:
    return "-" if seconds is None or np.isnan(seconds) else f"{seconds / 3600:.2f} h"
