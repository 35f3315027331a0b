"""slurm-power-train precision: the table that decides every dtype."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from training.precision import TABLES, describe


@click.command()
@click.option("--policy", type=click.Choice(list(TABLES)), default="fp8", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object, by operation.")
def precision(policy: str, as_json: bool) -> None:
    """Print what each operation computes, accumulates, gives and sends in."""
    table = TABLES[policy]
    click.echo(json.dumps({name: asdict(op) for name, op in table.items()}, indent=2) if as_json else describe(table))
