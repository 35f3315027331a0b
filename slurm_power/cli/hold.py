"""slurm-power hold and observe: stop the automation for a while, or let it only watch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slurm_power.cli.admin_client import admin_options, send_wish
from slurm_power.cli.controller_client import echo_json
from slurm_power.cli.words import clock_time, printable

if TYPE_CHECKING:
    _SecondsType = click.ParamType[float]
else:
    _SecondsType = click.ParamType  # not subscriptable before click 8.3

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Duration(_SecondsType):
    """90s, 30m, 2h, 1d: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value).strip())
        if found is None or float(found.group(1)) == 0:
            self.fail(f"{value!r}: must be a duration as 90s, 30m, 2h or 1d", param, ctx)
        return float(found.group(1)) * _UNITS[found.group(2)]


@click.command()
@admin_options
@click.option("--for", "for_s", type=Duration(), default="30m", show_default=True, help="How long: 90s, 30m, 2h.")
@click.option("--off", is_flag=True, help="End the hold now.")
def hold(
    for_s: float, off: bool, as_json: bool, config_path: Path, url: str | None, token_file: Path | None, why: str | None
) -> None:
    """Decide nothing new about jobs for a while (at most a day).

    Caps and reservations that stand are kept, and the battery goes on defending the target. The hold ends by itself,
    and until then survives a restart of the controller.
    """
    wish: dict[str, Any] = {"on": False} if off else {"for_s": for_s}
    now = send_wish("hold", wish, config_path=config_path, url=url, token_file=token_file, why=why)
    if as_json:
        echo_json(now)
        return
    held = now["hold"]
    click.echo("the automation decides again" if held is None else f"held until {clock_time(held['until_wall_s'])}")


@click.command()
@admin_options
@click.option("--off", is_flag=True, help="Manage again.")
def observe(
    off: bool, as_json: bool, config_path: Path, url: str | None, token_file: Path | None, why: str | None
) -> None:
    """Write to nothing until it is taken back with --off: measure, forecast and plan only.

    Caps are given back within one lease, the battery's setpoint ends by itself. Survives a restart of the controller.
    """
    now = send_wish("observe", {"on": not off}, config_path=config_path, url=url, token_file=token_file, why=why)
    if as_json:
        echo_json(now)
    else:
        observed = now["observe"]
        said = "managing again" if observed is None else f"observing only, asked by {observed['who']}"
        click.echo(printable(said))
