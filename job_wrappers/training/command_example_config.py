"""slurm-power-train example-config: a config to start from."""

from __future__ import annotations

import click

from training.run.config_text import example_config as text


@click.command("example-config")
def example_config() -> None:
    """Print a config with every key, to be edited."""
    click.echo(text(), nl=False)
