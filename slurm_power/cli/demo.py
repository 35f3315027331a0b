"""slurm-power demo: a day on a real Slurm cluster on this machine, without and with power management."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from slurm_power.demo.report import print_table
from slurm_power.demo.run import run_demo
from slurm_power.demo.settings import DEFAULT_DAY_S, DEFAULT_SEED, DemoSettings


@click.command()
@click.option("--load", "load_file", type=click.Path(path_type=Path), help="Building load: a CSV of time and power.")
@click.option("--load-day", type=str, help="ISO date in that file; default: its highest peak.")
@click.option("--store", type=click.Choice(["sqlite", "influxdb"]), default="sqlite", show_default=True)
@click.option("--seed", type=int, default=DEFAULT_SEED, show_default=True, help="Of the job stream and building.")
@click.option("--day-s", type=float, default=DEFAULT_DAY_S, show_default=True, help="Seconds the day lasts.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Results.",
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the table.")
def demo(
    load_file: Path | None,
    load_day: str | None,
    store: str,
    seed: int,
    day_s: float,
    directory: Path,
    as_json: bool,
) -> None:
    """Run one compressed day twice, management off and on, on a real Slurm cluster with emulated GPUs.

    Writes report.json and demo-report.html into --dir. Needs root, for slurmd and munge do.
    """
    settings = DemoSettings(
        directory=directory.absolute(),
        load_file=load_file,
        load_day=load_day,
        store="influxdb" if store == "influxdb" else "sqlite",
        seed=seed,
        day_s=day_s,
    )
    console = Console(stderr=as_json, highlight=False)
    settings.directory.mkdir(parents=True, exist_ok=True)
    with Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.fields[now]}"),
        TimeRemainingColumn(),
        console=console,
    ) as bars:
        outcome = run_demo(settings, progress=lambda name: _bar(bars, name, settings.window_s))
    if as_json:
        click.echo(outcome.json_file.read_text())
    else:
        print_table(console, outcome.unmanaged, outcome.managed)
    console.print(f"Report: {outcome.html_file}", soft_wrap=True)


def _bar(bars: Progress, name: str, total_s: float) -> Callable[[float, str], None]:
    task = bars.add_task(name, total=total_s, now="starting")

    def tell(at_s: float, now: str) -> None:
        bars.update(task, completed=min(max(0.0, at_s), total_s), now=now)

    return tell
