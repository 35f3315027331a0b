"""slurm-power config: is the file right, and where does each value come from."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console
from rich.table import Table

from slurm_power.cli.config_option import CONFIG_VARIABLE, DEFAULT_CONFIG
from slurm_power.cli.controller_client import echo_json
from slurm_power.site_config import OPTIONAL, OWNERS, SiteConfig, read_site_config

_file = click.argument(
    "file", type=click.Path(path_type=Path), default=DEFAULT_CONFIG, envvar=CONFIG_VARIABLE, required=False
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def config() -> None:
    """Check and explain the site's config file."""


@config.command()
@_file
@_json
def check(file: Path, as_json: bool) -> None:
    """Read FILE strictly; one line names key, value and rule of the first mistake (exit code 3)."""
    read = read_site_config(file)
    missing = [name for name in OWNERS if name not in read.given and name not in OPTIONAL]
    if as_json:
        echo_json({"file": str(file), "ok": True, "tables": sorted(read.given), "absent": missing})
        return
    click.echo(f"{file}: good; tables {', '.join(sorted(read.given))}")
    if missing:
        click.echo(f"absent, so their defaults hold or their part cannot start here: {', '.join(missing)}")


@config.command()
@_file
@_json
def explain(file: Path, as_json: bool) -> None:
    """Print every value that holds, and whether it stands in FILE or is a default."""
    rows = _explained(read_site_config(file))
    if as_json:
        echo_json(rows)
        return
    table = Table("table", "key", "value", "from")
    for row in rows:
        table.add_row(row["table"], row["key"], row["value"], row["from"])
    Console(highlight=False, markup=False).print(table)


def _explained(read: SiteConfig) -> list[dict[str, Any]]:
    return [
        {
            "table": name,
            "key": field.name,
            "value": str(getattr(table, field.name)),
            "from": "file" if field.name in read.given[name] else "default",
        }
        for name in OWNERS
        if name in read.given
        for table in (read.chosen(name),)
        for field in fields(cast(Any, table))
        if field.init
    ]
