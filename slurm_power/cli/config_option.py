"""The `--config` option of every command that reads the site's file. Light: the node agent loads it too."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_CONFIG = Path("/etc/slurm-power/slurm-power.toml")
CONFIG_VARIABLE = "SLURM_POWER_CONFIG"

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The site's config file.",
)
