"""slurm-power llm simulate: a trace of requests through instances in memory, steered by the managers."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from slurm_power.adapters.serving_profile_file import read_serving_profile
from slurm_power.cli.controller_client import echo_json
from slurm_power.cli.words import printable
from slurm_power.errors import ConfigError
from slurm_power.llm.arrivals import ArrivalConfig
from slurm_power.llm.profile import ServingProfile
from slurm_power.replay.serving.baseline import fewest_servers
from slurm_power.replay.serving.foresight import template_of
from slurm_power.replay.serving.policies import POLICIES, Prices, SimulationConfig, policy_named
from slurm_power.replay.serving.result import QUANTILES, Outcome
from slurm_power.replay.serving.simulate import simulate
from slurm_power.replay.serving.trace import COLUMNS, Requests, read_requests, scaled, week_of
from slurm_power.units import kw_from_watts, kwh_from_joules

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("simulate")
@click.option("--trace", "trace_file", type=_FILE, required=True, help=f"CSV with the columns {', '.join(COLUMNS)}.")
@click.option("--policies", default=",".join(POLICIES), show_default=True, help="Which, separated by commas.")
@click.option("--profile", default="llama-70b-h100", show_default=True, help="A shipped profile's name, or a file.")
@click.option("--scale", default=1.0, show_default=True, help="So many times the trace's load.")
@click.option("--week", is_flag=True, help="A SYNTHETIC week made of the trace, whose mean is the weekday's peak.")
@click.option("--servers", type=click.IntRange(min=1), help="Of a fixed fleet. Default: the fewest that keep the SLO.")
@click.option("--predictor-right", default=0.8, show_default=True, help="Share of answers whose class is foreseen.")
@click.option("--intensity", type=_FILE, help="CSV with the columns hour, g_per_kwh. Default: 400 g at all hours.")
@click.option("--gpu-hour-price", default=3.0, show_default=True, help="Of a GPU that an instance holds.")
@click.option("--seed", default=0, show_default=True, help="Of thinning and of the predictor's errors.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Draw it (PNG, SVG or PDF).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate_command(
    trace_file: Path,
    policies: str,
    profile: str,
    scale: float,
    week: bool,
    servers: int | None,
    predictor_right: float,
    intensity: Path | None,
    gpu_hour_price: float,
    seed: int,
    plot_file: Path | None,
    as_json: bool,
) -> None:
    """Serve a trace under several policies and compare energy, money and deadlines.

    Deadlines (assumptions): first token in 250 / 400 / 2000 ms for prompts below 256, below 1024 and longer; 100 ms
    between two tokens. A request keeps them if its first token is in time and 99 % of its gaps are.
    """
    chosen = [policy_named(name.strip()) for name in policies.split(",")]
    if not 0.0 <= predictor_right <= 1.0:
        raise ConfigError(f"--predictor-right {predictor_right}: must be from 0 to 1")
    if not 0.0 <= gpu_hour_price < math.inf:
        raise ConfigError(f"--gpu-hour-price {gpu_hour_price}: must be 0 or more")
    prices = Prices(per_gpu_hour=gpu_hour_price, **_intensity(intensity))
    served = read_serving_profile(Path(profile))
    requests, template = _requests(trace_file, scale, week, seed)
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as bar:
        task = bar.add_task("fewest servers", total=1.0)
        fixed = servers or fewest_servers(requests, served)
        found: dict[str, Outcome] = {}
        for policy in chosen:
            bar.update(task, description=policy.name, completed=0.0)
            config = SimulationConfig(
                policy=policy,
                profile=served,
                servers=fixed,
                template=template,
                predictor_right_fraction=predictor_right,
                seed=seed,
            )
            found[policy.name] = simulate(requests, config, tell=lambda share: bar.update(task, completed=share))
    if plot_file is not None:
        from slurm_power.cli.llm_plot import draw_fleet  # matplotlib takes a moment to load

        draw_fleet(found, plot_file)
    if as_json:
        echo_json(_as_json(found, prices, fixed, served, week))
    else:
        _print(found, prices, fixed, served, week)


def _requests(file: Path, scale: float, week: bool, seed: int) -> tuple[Requests, Mapping[int, float]]:
    """With the template of the week before, which is another draw of the same shape."""
    try:
        with file.open(encoding="utf-8") as lines:
            trace = read_requests(lines, where=printable(str(file)))
    except UnicodeDecodeError as cause:
        raise ConfigError(f"{printable(str(file))}: no text: {cause.reason}") from cause
    if not 0 < scale < math.inf:
        raise ConfigError(f"--scale {scale}: must be above 0")
    if not week:
        return (trace if scale == 1.0 else scaled(trace, scale, seed=seed)), {}
    before = week_of(trace, peak_factor=scale, seed=seed + 1)
    return week_of(trace, peak_factor=scale, seed=seed), template_of(before, ArrivalConfig())


def _intensity(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    where = printable(str(file))
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if reader.fieldnames is None or not {"hour", "g_per_kwh"} <= set(reader.fieldnames):
            raise ConfigError(f"{where}: the first line must name the columns hour and g_per_kwh")
        try:
            by_hour = {int(row["hour"]): float(row["g_per_kwh"]) for row in reader}
        except (TypeError, ValueError) as cause:
            raise ConfigError(f"{where}: hour must be a whole number, g_per_kwh a number") from cause
    if sorted(by_hour) != list(range(len(by_hour))) or not by_hour:
        raise ConfigError(f"{where}: hours must count from 0 without a gap")
    if not all(0.0 <= one < math.inf for one in by_hour.values()):
        raise ConfigError(f"{where}: g_per_kwh must be 0 or more")
    return {"carbon_g_per_kwh": tuple(by_hour[hour] for hour in sorted(by_hour))}


def _as_json(
    found: Mapping[str, Outcome], prices: Prices, servers: int, profile: ServingProfile, week: bool
) -> dict[str, Any]:
    return {
        "synthetic_week": week,
        "profile": {"name": profile.name, "origin": profile.origin},
        "servers_of_a_fixed_fleet": servers,
        "policies": {name: _figures(one, prices) for name, one in found.items()},
    }


def _figures(one: Outcome, prices: Prices) -> dict[str, Any]:
    return {
        "requests": one.requests,
        "lost": one.lost,
        "energy_joules": one.energy_joules,
        "host_joules": one.host_joules,
        "joules_per_token": one.joules_per_token,
        "gpu_hours": one.gpu_hours,
        "server_hours": one.server_hours,
        "cost": one.cost(prices),
        "currency": prices.currency,
        "carbon_g": one.carbon_g(prices),
        "slo_attainment_fraction": one.attainment_fraction,
        "ttft_s": _quantiles(one.ttft_s),
        "tbt_s": _quantiles(one.tbt_s),
        "power_watts": {"p50": one.power_watts(0.5), "p99": one.power_watts(0.99)},
        "classes": {
            name: {
                "requests": each.requests,
                "slo_attainment_fraction": each.attainment_fraction,
                "ttft_s": _quantiles(each.ttft_s),
                "tbt_s": _quantiles(each.tbt_s),
            }
            for name, each in one.classes.items()
        },
    }


def _quantiles(values: tuple[float, ...]) -> dict[str, float]:
    return {f"p{100 * fraction:.0f}": value for fraction, value in zip(QUANTILES, values, strict=True)}


def _print(found: Mapping[str, Outcome], prices: Prices, servers: int, profile: ServingProfile, week: bool) -> None:
    console = Console(highlight=False)
    _print_energy(found, prices, console)
    _print_deadlines(found, console)
    _print_classes(found, console)
    first = next(iter(found.values()))
    kind = "a SYNTHETIC week, " if week else ""
    console.print(
        f"{kind}{first.requests:,} requests over {first.span_s / 3600:.1f} h; a fixed fleet has {servers} servers; "
        f"saved is against {next(iter(found))}. Energy is that of the GPUs, hosts apart. Profile {profile.name}: "
        f"{profile.origin.split('.')[0]}.",
        soft_wrap=True,
    )


def _print_energy(found: Mapping[str, Outcome], prices: Prices, console: Console) -> None:
    table = _table("", "kWh", "J/token", "saved", "GPU h", prices.currency, "kg CO2", "kW p50", "p99")
    first = next(iter(found.values()))
    for name, one in found.items():
        table.add_row(
            name,
            f"{kwh_from_joules(one.energy_joules):,.1f}",
            f"{one.joules_per_token:.2f}",
            f"{1.0 - one.energy_joules / first.energy_joules:.1%}",
            f"{one.gpu_hours:,.1f}",
            f"{one.cost(prices):,.0f}",
            f"{one.carbon_g(prices) / 1000:,.1f}",
            f"{kw_from_watts(one.power_watts(0.5)):.1f}",
            f"{kw_from_watts(one.power_watts(0.99)):.1f}",
        )
    console.print(table)


def _print_deadlines(found: Mapping[str, Outcome], console: Console) -> None:
    quantiles = [f"p{100 * fraction:.0f}" for fraction in QUANTILES]
    table = _table(
        "", "kept", "TTFT s " + quantiles[0], *quantiles[1:], "TBT ms " + quantiles[0], *quantiles[1:], "lost"
    )
    for name, one in found.items():
        ttft = (f"{value:.2f}" for value in one.ttft_s)
        tbt = (f"{1000 * value:.0f}" for value in one.tbt_s)
        table.add_row(name, f"{one.attainment_fraction:.2%}", *ttft, *tbt, f"{one.lost}")
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    return table


def _print_classes(found: Mapping[str, Outcome], console: Console) -> None:
    names = sorted({name for one in found.values() for name in one.classes})
    table = _table("kept, by class", *names)
    for policy, one in found.items():
        shares = (one.classes[name].attainment_fraction if name in one.classes else None for name in names)
        table.add_row(policy, *("" if share is None else f"{share:.1%}" for share in shares))
    console.print(table)
