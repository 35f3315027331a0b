"""slurm-power replay load: what a planned battery would have saved on a recorded load."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from slurm_power.adapters.rate_file import read_rate
from slurm_power.cli.controller_client import echo_json
from slurm_power.cli.load_file import read_series
from slurm_power.errors import ConfigError
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.cell_wear import CellLife, Wear, wear_of
from slurm_power.forecasting.grid import Series
from slurm_power.forecasting.live import LEAST_DAYS
from slurm_power.forecasting.rolling import RollingConfig
from slurm_power.replay.judged_load import JudgedLoad, judge
from slurm_power.replay.learned import learned_forecast, rolled_forecasts
from slurm_power.replay.site_load import (
    BatteryRun,
    SiteLoad,
    charge_created_peaks,
    limits_broken,
    months_of,
    perfect_forecast,
)

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SHORT_RECORD_DAYS = 180
_STEPS = {
    "forecasts": "forecasts",
    "ours": "our plan, slot by slot",
    "ours_perfect_24h": "with a perfect forecast",
}


@click.command("load")
@click.argument("load_file", metavar="FILE", type=_FILE)
@click.option("--tariff", "tariff_file", type=_FILE, required=True, help="A rate as JSON, in URDB's format.")
@click.option("--tz", default="UTC", show_default=True, help="Zone of the tariff's calendar and of dates without one.")
@click.option("--unit", type=click.Choice(["W", "kW", "MW", "GW"]), help="Default: from the power column's name.")
@click.option("--column", help="The power column, if it is not the first one of numbers.")
@click.option("--scale", default=1.0, show_default=True, help="Multiply the power by this.")
@click.option(
    "--from", "first_day", type=click.DateTime(["%Y-%m-%d"]), help="Judge from this day on; before is history."
)
@click.option("--battery", "power_fraction", default=0.15, show_default=True, help="Power, as a share of the peak.")
@click.option("--hours", default=2.0, show_default=True, help="Energy: so many hours at that power.")
@click.option("--efficiency", default=0.8986, show_default=True, help="From grid to grid, through the battery.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Draw it (PNG, SVG or PDF).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def load_command(
    load_file: Path,
    tariff_file: Path,
    tz: str,
    unit: str | None,
    column: str | None,
    scale: float,
    first_day: datetime | None,
    power_fraction: float,
    hours: float,
    efficiency: float,
    plot_file: Path | None,
    as_json: bool,
) -> None:
    """Bill a recorded load without a battery, with one planned as the controller plans, and at the bound.

    At each slot the forecast is learned from what was before it. Beside ours stand the best single threshold found in
    hindsight and the plan with a perfect forecast of the next day; nothing can be below the bound.
    """
    for name, value in (("--battery", power_fraction), ("--hours", hours)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} {value}: must be above 0")
    if not 0 < efficiency <= 1:
        raise ConfigError(f"--efficiency {efficiency}: must be above 0 and at most 1")
    series = read_series(load_file, column=column, unit=unit, tz=tz, scale=scale)
    first = _first_slot(series, first_day, load_file)
    judged = series.between(first, series.watts.size)
    battery = BatteryLimits.sized(
        power_fraction * float(judged.watts.max()), hours=hours, ac_to_ac_efficiency=efficiency
    )
    case = SiteLoad.of(judged, rates=read_rate(tariff_file, tz), battery=battery)
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def tell(step: str, share: float) -> None:
            bar.update(task, description=_STEPS[step], completed=share)

        rolled = rolled_forecasts(series, first, _rolling(series), lambda share: tell("forecasts", share))
        forecasts = {
            "ours": learned_forecast(series, rolled, first),
            "ours_perfect_24h": perfect_forecast(case, series.period),
        }
        found = judge(case, forecasts, tell=tell)
    if plot_file is not None:
        from slurm_power.cli.replay_plot import draw_load  # matplotlib takes a moment to load

        draw_load(case, found.runs["ours"].import_watts, plot_file)
    if as_json:
        echo_json(_as_json(case, found))
    else:
        _print(case, found)


def _rolling(series: Series) -> RollingConfig:
    """A short record is learned from anew each week."""
    days = series.watts.size / series.period
    return RollingConfig() if days > _SHORT_RECORD_DAYS else RollingConfig(refit_days=7.0)


def _first_slot(series: Series, first_day: datetime | None, file: Path) -> int:
    least = LEAST_DAYS * series.period
    if series.watts.size <= least + series.period:
        raise ConfigError(f"{file}: {series.watts.size / series.period:.1f} days; at least {LEAST_DAYS + 1} are needed")
    if first_day is None:
        return least
    first = round((first_day.replace(tzinfo=series.zone).timestamp() - series.start_wall_s) / series.slot_s)
    if not least <= first < series.watts.size:
        raise ConfigError(
            f"--from {first_day:%Y-%m-%d}: must lie in the file, {LEAST_DAYS} days or more after its start"
        )
    return first


_NAMES = {
    "none": "no battery",
    "threshold_hindsight": "best single threshold, in hindsight",
    "ours": "planned, with our forecast",
    "ours_perfect_24h": "planned, next day known",
    "perfect": "the bound: everything known",
}


def _as_json(case: SiteLoad, found: JudgedLoad) -> dict[str, object]:
    ours = found.runs["ours"]
    return {
        "days": _days(case),
        "bills": dict(found.bills),
        "saving_captured_fraction": found.captured_fractions,
        "peak_watts": {"none": float(case.watts.max()), "ours": float(ours.import_watts.max())},
        "months": [
            {"start_wall_s": case.rates.period_start_wall_s(period), "none": none, "ours": own}
            for period, (none, own) in months_of(case, [case.watts, ours.import_watts])
        ],
        "wear": _wear_json(case, ours),
        "charge_created_peaks": charge_created_peaks(case, ours),
        "hard_violations": limits_broken(case, ours),
    }


def _wear(case: SiteLoad, run: BatteryRun) -> Wear:
    return wear_of((run.stored_joules / case.battery.capacity_joules).tolist(), CellLife())


def _wear_json(case: SiteLoad, run: BatteryRun) -> dict[str, float]:
    wear = _wear(case, run)
    return {
        "full_cycles": wear.full_cycles,
        "deepest_fraction": wear.deepest_fraction,
        "life_used_fraction": wear.used_fraction,
    }


def _print(case: SiteLoad, found: JudgedLoad) -> None:
    table = Table("", case.rates.currency, "of the possible saving", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    captured = found.captured_fractions
    for name, text in _NAMES.items():
        share = captured.get(name)
        table.add_row(text, f"{found.bills[name]:,.2f}", "" if share is None else f"{share:.0%}")
    console = Console(highlight=False)
    console.print(table)
    ours = found.runs["ours"]
    console.print(
        f"{_days(case):.0f} days; highest import {case.watts.max() / 1000:,.0f} kW without, "
        f"{ours.import_watts.max() / 1000:,.0f} kW with the battery; "
        f"peaks made by charging: {charge_created_peaks(case, ours)}"
    )
    wear, life = _wear(case, ours), CellLife()
    console.print(
        f"battery: {wear.full_cycles:.1f} full cycles, the deepest {wear.deepest_fraction:.0%}; by rainflow counting "
        f"{wear.used_fraction:.2%} of a life of {life.rated_cycles:,.0f} cycles {life.rated_depth_fraction:.0%} deep"
    )


def _days(case: SiteLoad) -> float:
    return case.watts.size * case.slot_s / 86_400.0
