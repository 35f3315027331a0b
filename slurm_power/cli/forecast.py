"""slurm-power forecast: how good the load forecast would have been on a recorded load."""

from __future__ import annotations

import math
from dataclasses import asdict
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
from slurm_power.ess.rates import Rates
from slurm_power.forecasting.backtest import Backtest
from slurm_power.forecasting.grid import Series

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def forecast() -> None:
    """Look at the load forecast."""


@forecast.command()
@click.argument("load_file", metavar="FILE", type=_FILE)
@click.option(
    "--days", type=click.IntRange(2), default=90, show_default=True, help="How many of the last days to test."
)
@click.option("--column", help="The power column, if it is not the first one of numbers.")
@click.option("--unit", type=click.Choice(["W", "kW", "MW", "GW"]), help="Default: from the column's name.")
@click.option(
    "--slot-min", type=click.FloatRange(1, 1440), help="Minutes of a slot; default: as in the file, 15 at least."
)
@click.option("--tz", default="UTC", show_default=True, help="Zone of dates without one, and of the calendar.")
@click.option("--tariff", "tariff_file", type=_FILE, help="A URDB rate (JSON): print what errors cost in money, too.")
@click.option(
    "--battery", "power_fraction", default=0.15, show_default=True, help="With --tariff: its power, of the peak."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backtest(
    load_file: Path,
    days: int,
    column: str | None,
    unit: str | None,
    slot_min: float | None,
    tz: str,
    tariff_file: Path | None,
    power_fraction: float,
    as_json: bool,
) -> None:
    """Forecast each of the last days of FILE from its midnight, and compare with what came.

    Beside it stand seasonal naive forecasts with calibrated bands. A forecast that knew its future is refused.
    With --tariff a battery of two hours is planned with each forecast over the same days: what the bill is above
    the one with everything known is what the forecast's errors cost.
    """
    if not 0 < power_fraction < math.inf:
        raise ConfigError(f"--battery {power_fraction}: must be above 0")
    series = read_series(load_file, column=column, unit=unit, tz=tz, slot_min=slot_min)
    found = _run(series, days, quiet=as_json)
    regret = None
    if tariff_file is not None:
        regret = _regret(series, days, read_rate(tariff_file, tz), power_fraction, quiet=as_json)
    if as_json:
        content = {name: asdict(scores) for name, scores in found.scores.items()}
        told = {"pinball_ratio_to_naive": found.pinball_ratio_to_naive, "days": found.days, "scores": content}
        echo_json(told if regret is None else {**told, "money_regret": regret})
    else:
        _print(found)
        if regret is not None:
            _print_regret(regret)


def _run(series: Series, days: int, *, quiet: bool) -> Backtest:
    from slurm_power.forecasting.backtest import backtest as judge  # LightGBM takes a moment to load

    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("learning and forecasting", total=1.0)
        try:
            return judge(series, days=days, progress=lambda share: bar.update(task, completed=share))
        except ValueError as cause:
            raise ConfigError(f"--days {days}: {cause}") from cause


def _regret(series: Series, days: int, rates: Rates, power_fraction: float, *, quiet: bool) -> dict[str, float]:
    """Money above the bill with everything known, by forecast; `none`: without the battery."""
    from slurm_power.forecasting.rolling import RollingConfig
    from slurm_power.replay.judged_load import BOUND, THRESHOLD, judge
    from slurm_power.replay.learned import learned_forecast, rolled_forecasts
    from slurm_power.replay.site_load import SiteLoad, week_ago_forecast

    first = series.watts.size - days * series.period
    judged = series.between(first, series.watts.size)
    battery = BatteryLimits.sized(power_fraction * float(judged.watts.max()), hours=2.0, ac_to_ac_efficiency=0.9)
    case = SiteLoad.of(judged, rates=rates, battery=battery)
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def tell(step: str, share: float) -> None:
            bar.update(task, description=f"money: {step}", completed=share)

        rolled = rolled_forecasts(series, first, RollingConfig(), lambda share: tell("forecasts", share))
        forecasts = {
            "ours": learned_forecast(series, rolled, first),
            "naive 7 days": week_ago_forecast(series.watts[:first], case, series.period),
        }
        bills = judge(case, forecasts, tell=tell).bills
    return {name: round(bill - bills[BOUND], 2) for name, bill in bills.items() if name not in (BOUND, THRESHOLD)}


def _print_regret(regret: dict[str, float]) -> None:
    words = {"none": "without the battery", "ours": "planned with our forecast", "naive 7 days": "as a week ago"}
    texts = (f"{words[name]} {money:,.2f}" for name, money in regret.items())
    Console(highlight=False).print(f"bill above the one with everything known: {', '.join(texts)}")


def _print(found: Backtest) -> None:
    table = Table("", "pinball", "80 % band", "below 95 %", "daily peak off", "peak hour hit", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, scores in found.scores.items():
        table.add_row(
            name,
            f"{scores.pinball_watts / 1000:,.2f} kW",
            _percent(scores.coverage_80),
            _percent(scores.coverage_95),
            f"{scores.peak_mape_fraction:.2%}",
            f"{scores.peak_hour_hit_fraction:.0%}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{found.days} days; the learned model was used on {found.learned_fraction:.0%} of them; pinball loss "
        f"{1 - found.pinball_ratio_to_naive:.0%} below the better naive forecast"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
