"""slurm-power-serve bench: what a running server gives its clients, and what it takes for it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from job_wrappers.serving.errors import ConfigError
from job_wrappers.serving.launch.bench_asks import Ask, fitted, made_up, read_trace
from job_wrappers.serving.launch.bench_client import Heard, Target, find_target, read_joules, send_all
from job_wrappers.serving.launch.bench_figures import BenchFigures, figures_of
from job_wrappers.serving.launch.endpoint import endpoint_folder, find_endpoint
from job_wrappers.training.words import number, scaled

_SETTLE_S = 0.2
"""Until the last joules are dealt out."""


def _span(context: click.Context, option: click.Parameter, value: str) -> tuple[int, int]:
    """`64` or `32-256`."""
    least, _, most = value.partition("-")
    if not least.isdigit() or not (most or least).isdigit() or not 1 <= int(least) <= int(most or least):
        raise click.BadParameter(f"{value} is neither a number above 0 nor a span like 32-256")
    return int(least), int(most or least)


@click.command()
@click.option("--job", help="Number of the serving job; not needed when there is only one server.")
@click.option("--url", help="Any server of the OpenAI API.")
@click.option("--trace", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CSV of real arrivals.")
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Times faster than the trace.")
@click.option("--requests", type=click.IntRange(1), help="How many; default: the whole trace, or 100 made up.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Made-up arrivals a second; default: at once."
)
@click.option("--prompt-tokens", callback=_span, default="32-256", show_default=True, help="Of made-up requests.")
@click.option("--new-tokens", callback=_span, default="64", show_default=True, help="Of made-up requests.")
@click.option("--concurrency", type=click.IntRange(1), help="Never more than this at once; default: as they arrive.")
@click.option("--priority", type=click.Choice(["interactive", "batch"]), default="interactive", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="PNG or SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    job: str | None,
    url: str | None,
    trace: Path | None,
    speed: float,
    requests: int | None,
    rate: float | None,
    prompt_tokens: tuple[int, int],
    new_tokens: tuple[int, int],
    concurrency: int | None,
    priority: str,
    seed: int,
    plot_file: Path | None,
    as_json: bool,
) -> None:
    """Measure a running server: replay the arrivals of a trace, or made-up ones, with random prompts of their lengths.

    A trace has the columns TIMESTAMP, ContextTokens, GeneratedTokens, as the Azure LLM inference traces have.
    """
    if trace is not None and rate is not None:
        raise ConfigError("--rate is of made-up arrivals; with --trace say --speed")
    target = find_target(url or find_endpoint(job, endpoint_folder(os.environ)).url)
    if trace is not None:
        wanted = read_trace(trace, speed=speed, requests=requests)
    else:
        wanted = made_up(
            requests=requests or 100, rate_per_s=rate, prompt_tokens=prompt_tokens, new_tokens=new_tokens, seed=seed
        )
    asks, cut = fitted(wanted, target.max_model_len)
    heard, figures = _measure(target, asks, concurrency=concurrency, priority=priority, seed=seed, quiet=as_json)
    if plot_file is not None:
        from job_wrappers.serving.launch.bench_plot import plot

        plot(heard, plot_file, title=f"{target.model}, {figures.requests} requests")
    if as_json:
        click.echo(json.dumps({"model": target.model, "requests_cut": cut, **asdict(figures)}, indent=2))
    else:
        _print(target, figures, cut)
    if figures.finished == 0:
        sys.exit(1)


def _measure(
    target: Target, asks: list[Ask], *, concurrency: int | None, priority: str, seed: int, quiet: bool
) -> tuple[list[Heard], BenchFigures]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("requests", total=len(asks))
        before_joules, began_s = read_joules(target.url), time.monotonic()
        heard = asyncio.run(
            send_all(
                target,
                asks,
                most_at_once=concurrency,
                priority=priority,
                seed=seed,
                on_done=lambda each: progress.advance(task),
            )
        )
        duration_s = time.monotonic() - began_s
    time.sleep(_SETTLE_S)
    after_joules = read_joules(target.url)
    used = None if before_joules is None or after_joules is None else after_joules - before_joules
    return heard, figures_of(heard, duration_s=duration_s, energy_joules=used)


def _print(target: Target, figures: BenchFigures, cut: int) -> None:
    console = Console(highlight=False)
    console.print(f"{target.model} at {target.url}: {figures.requests} requests in {figures.duration_s:.1f} s")
    if cut:
        console.print(f"{cut} were cut to the model's {target.max_model_len} tokens")
    if figures.sent_late_s > 1.0:
        console.print(f"the client sent up to {figures.sent_late_s:.1f} s late")
    rates = Table("requests", "", show_header=False)
    rates.add_row("finished / refused / failed", f"{figures.finished} / {figures.refused} / {figures.failed}")
    rates.add_row("requests/s", number(figures.requests_per_s, ".2f"))
    rates.add_row("generated tokens/s", number(figures.generated_tokens_per_s, ".1f"))
    rates.add_row("energy, mean power", f"{scaled(figures.energy_joules, 'J')}, {scaled(figures.mean_watts, 'W')}")
    rates.add_row("energy per generated token", scaled(figures.joules_per_token, "J"))
    console.print(rates)
    latencies = Table("latency, ms", *figures.first_token_s)
    for name, values in (
        ("first token", figures.first_token_s),
        ("per further token", figures.per_token_s),
        ("longest gap", figures.longest_gap_s),
        ("whole answer", figures.whole_s),
    ):
        latencies.add_row(name, *(number(None if v is None else 1000 * v, ".1f") for v in values.values()))
    console.print(latencies)
    wrong = {outcome: count for outcome, count in figures.outcomes.items() if outcome not in ("finished", "refused")}
    for outcome, count in wrong.items():
        console.print(f"{count} x {outcome}", markup=False)
