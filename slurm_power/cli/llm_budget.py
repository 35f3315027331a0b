"""slurm-power llm budget: what a pool of language-model instances may draw for a while; llm pools: what they draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from slurm_power.cli.controller_client import ask, asking_options, controller_url, echo_json
from slurm_power.cli.hold import Duration
from slurm_power.cli.words import printable
from slurm_power.llm.pool_wire import Override


@click.command()
@asking_options
@click.argument("pool")
@click.option("--watts", type=click.FloatRange(0), help="All of its instances together.")
@click.option("--for", "for_s", type=Duration(), default="10m", show_default=True, help="How long: 90s, 30m, 2h.")
@click.option("--off", is_flag=True, help="Withdraw it now.")
def budget(
    pool: str, watts: float | None, for_s: float, off: bool, as_json: bool, config_path: Path, url: str | None
) -> None:
    """Let POOL (OWNER/CLASS, or OWNER for all of its pools) draw no more than --watts for a while.

    It obeys within one epoch of its manager: by clock, then batch, then the smaller model. Needs to be root, or the
    controller's own user, on a host with the cluster's munge.
    """
    if (watts is None) != off:
        raise click.UsageError("give --watts N, or --off")
    from slurm_power.compose_pool import admin_link

    admin_link(config_path, url or controller_url(config_path)).override(Override(pool, watts, for_s))
    if as_json:
        echo_json({"pool": pool, "watts": watts, "for_s": 0.0 if off else for_s})
    else:
        said = "has no budget of yours any more" if watts is None else f"may draw {watts:.0f} W for {for_s:.0f} s"
        click.echo(f"{printable(pool)} {said}")


@click.command()
@asking_options
def pools(as_json: bool, config_path: Path, url: str | None) -> None:
    """What each pool draws, and its budget."""
    rows: list[dict[str, Any]] = ask("pools", config_path=config_path, url=url)
    if as_json:
        echo_json(rows)
        return
    table = Table("pool", "draws", "at least", "may draw", "for")
    for row in rows:
        budget_watts, for_s = row["budget_watts"], row["budget_for_s"]
        limit = "-" if budget_watts is None else f"{budget_watts:.0f} W"
        left = "-" if for_s is None else f"{for_s:.0f} s"
        table.add_row(
            printable(str(row["pool"])), f"{row['draw_watts']:.0f} W", f"{row['least_watts']:.0f} W", limit, left
        )
    Console(highlight=False).print(table)
