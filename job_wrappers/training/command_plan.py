"""slurm-power-train plan: ways to cut a model over some GPUs, best first."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Column, Table

from job_wrappers.training.clocks import planned_clocks
from job_wrappers.training.model_choice import model_named, model_of
from job_wrappers.training.words import percent, scaled
from training.model.presets import PRESETS as MODELS
from training.planning.hardware import PRESETS as MACHINES
from training.planning.hardware import hardware
from training.planning.power_model import emulated_profile
from training.planning.rank_plans import ORDERS, Question, RankedPlan, Ranking, rank_plans
from training.precision import TABLES, PrecisionPolicy, policy
from training.run.config import read_config

HEADINGS = ("ppxtpxdp", "ep", "batches", "schedule", "s/step", "tokens/s", "J/token", "memory", "bubble")


@click.command(
    help=f"""Rank the ways to train MODEL over some GPUs by predicted step time or energy.

    MODEL: a run's config (*.toml; its batch and precision hold), a Hugging Face folder, or one of {", ".join(MODELS)}.
    Predictions rank plans; they are no promise of a speed.
    """
)
@click.argument("model")
@click.option("--gpus", type=click.IntRange(1), required=True, help="How many.")
@click.option(
    "--hardware", "machine", default="h100-sxm", show_default=True, help=f"{', '.join(MACHINES)}, or a .toml."
)
@click.option("--global-sequences", type=click.IntRange(1), default=256, show_default=True, help="Of one step.")
@click.option("--sequence-length", type=click.IntRange(1), default=4096, show_default=True, help="Tokens.")
@click.option("--precision", type=click.Choice(list(TABLES)), default="fp8", show_default=True)
@click.option("--by", "order", type=click.Choice(ORDERS), default="time", show_default=True)
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="How many plans to show.")
@click.option(
    "--clocks", is_flag=True, help="Also say what slower clocks where a stage waits would save in the best plan."
)
@click.option("--json", "json_asked", is_flag=True, help="The same as one JSON object.")
def plan(
    model: str,
    gpus: int,
    machine: str,
    global_sequences: int,
    sequence_length: int,
    precision: str,
    order: str,
    top: int,
    clocks: bool,
    json_asked: bool,
) -> None:
    question = Question(
        **_asked(model, global_sequences, sequence_length, policy(precision)), gpus=gpus, hardware=hardware(machine)
    )
    ranking = rank_plans(question, order=order, top=top)
    saved = clocks_text(ranking.best[0]) if clocks else None
    if json_asked:
        click.echo(json.dumps({**_as_json(ranking), "clocks": saved}, indent=2))
        return
    Console(highlight=False, markup=False).print(_table(ranking))
    click.echo(f"{ranking.feasible} of {ranking.tried} plans can run; predicted for {question.hardware.name}.")
    click.echo(
        "batches: micro-batches of a data rank x sequences in one; Z: ZeRO stage; memory: of the GPU that needs most."
    )
    for reason, count in list(ranking.refused.items())[:3]:
        click.echo(f"  {count} cannot: {reason}")
    if saved is not None:
        click.echo(saved)


def clocks_text(best: RankedPlan) -> str:
    """By the power model of the emulated board: a real one wants its own profile."""
    clocks = planned_clocks(best.plan, emulated_profile(best.predicted.stage_times))
    return f"{clocks.text()}; by the emulated board's power model"


def _asked(model: str, global_sequences: int, sequence_length: int, chosen: PrecisionPolicy) -> dict[str, Any]:
    if not model.endswith(".toml"):
        sizes = {"global_sequences": global_sequences, "sequence_length": sequence_length}
        return {"model": model_named(model), "policy": chosen, **sizes}
    config = read_config(Path(model))
    return {
        "model": model_of(config.model),
        "policy": config.precision.chosen(),
        "global_sequences": config.batch.global_sequences,
        "sequence_length": config.data.sequence_length,
    }


def _table(ranking: Ranking) -> Table:
    columns = (Column(heading, no_wrap=True) for heading in HEADINGS)
    table = Table(*columns, box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for ranked in ranking.best:
        cut, step = ranked.plan, ranked.predicted
        table.add_row(
            f"{cut.pipeline}x{cut.tensor}x{cut.data}",
            str(cut.expert),
            f"{cut.micro_batches} x {cut.micro_sequences}",
            f"{cut.schedule} Z{cut.zero_stage}",
            f"{step.step_s:.3g}",
            f"{step.tokens_per_s:,.0f}",
            f"{step.joules_per_token:.3g}",
            scaled(step.memory_bytes, "B"),
            percent(step.bubble_fraction),
        )
    return table


def _as_json(ranking: Ranking) -> dict[str, Any]:
    best = [
        {
            "plan": asdict(ranked.plan),
            "step_s": ranked.predicted.step_s,
            "tokens_per_s": ranked.predicted.tokens_per_s,
            "joules_per_token": ranked.predicted.joules_per_token,
            "memory_bytes": ranked.predicted.memory_bytes,
            "bubble_fraction": ranked.predicted.bubble_fraction,
        }
        for ranked in ranking.best
    ]
    return {"best": best, "tried": ranking.tried, "feasible": ranking.feasible, "refused": dict(ranking.refused)}
