"""slurm-power llm: serving of large language models, tried in memory, and live pools' watts."""

from __future__ import annotations

import click

from slurm_power.cli.lazy import LazyCommands

COMMANDS = {
    "simulate": "slurm_power.cli.llm_simulate:simulate_command",
    "pools": "slurm_power.cli.llm_budget:pools",
    "budget": "slurm_power.cli.llm_budget:budget",
}


@click.group(cls=LazyCommands, places=COMMANDS)
def llm() -> None:
    """Fleets of LLM serving instances: what their managers would save on a trace, what live ones draw and may draw."""
