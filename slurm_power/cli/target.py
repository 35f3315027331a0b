"""slurm-power target: promise to keep the grid import below so many watts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from slurm_power.cli.admin_client import admin_options, send_wish
from slurm_power.cli.controller_client import ask, echo_json
from slurm_power.cli.hold import Duration
from slurm_power.cli.words import clock_time, kw, printable


@click.command()
@admin_options
@click.argument("watts", type=click.FloatRange(min=0, min_open=True), required=False)
@click.option("--for", "for_s", type=Duration(), help="How long: 90s, 30m, 2h. Default: until --clear.")
@click.option("--clear", is_flag=True, help="Take the promise back.")
def target(
    watts: float | None,
    for_s: float | None,
    clear: bool,
    as_json: bool,
    config_path: Path,
    url: str | None,
    token_file: Path | None,
    why: str | None,
) -> None:
    """Keep the grid import at or below WATTS, whatever the bill says; without WATTS show what is defended now.

    The plan holds the promise with battery and jobs that allow it, and names what it cannot meet. It survives a restart
    of the controller.
    """
    if watts is not None and clear:
        raise click.UsageError("WATTS and --clear exclude each other")
    if watts is None and not clear:
        _show(as_json, config_path=config_path, url=url)
        return
    wish: dict[str, Any] = {"watts": None if clear else watts, "for_s": for_s}
    now = send_wish("target", wish, config_path=config_path, url=url, token_file=token_file, why=why)
    if as_json:
        echo_json(now)
    else:
        click.echo(printable(_promise(now["target"])))


def _show(as_json: bool, *, config_path: Path, url: str | None) -> None:
    status = ask("status", config_path=config_path, url=url)
    promised = (status.get("overrides") or {}).get("target")
    if as_json:
        echo_json({"target_watts": status["target_watts"], "promised": promised})
        return
    click.echo(f"defended now: {kw(status['target_watts'])}")
    click.echo(printable(_promise(promised)))


def _promise(promised: dict[str, Any] | None) -> str:
    if promised is None:
        return "no admin has promised a target"
    until = promised["until_wall_s"]
    end = "until it is taken back" if until is None else f"until {clock_time(until)}"
    return f"promised: {kw(promised['watts'])} {end}, by {promised['who']}: {promised['why']}"
