"""Asks a running controller over HTTP, and the options that every asking command shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx

from slurm_power.cli.config_option import config_option
from slurm_power.errors import Unavailable
from slurm_power.site_config import read_site_config

F = TypeVar("F", bound=Callable[..., Any])


def asking_options(command: F) -> F:
    """--config, --url and --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON (watts, joules, seconds, fractions)."),
        click.option("--url", envvar="SLURM_POWER_URL", help="Controller's address; default: from the config."),
        config_option,
    ):
        command = option(command)
    return command


def ask(what: str, *, config_path: Path, url: str | None) -> Any:
    """Raise Unavailable when no controller answers there, ConfigError when the config is bad."""
    base = url or controller_url(config_path)
    try:
        answer = httpx.get(f"{base.rstrip('/')}/api/{what}", timeout=5.0)
        answer.raise_for_status()
        return answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError) as cause:
        raise Unavailable(f"no controller answers at {base}: {cause}") from cause


def controller_url(config_path: Path) -> str:
    from slurm_power.daemons.controller_config import ControllerConfig

    controller = read_site_config(config_path, only={"controller"}).table(ControllerConfig)
    host = "127.0.0.1" if controller.listen_host in ("0.0.0.0", "::") else controller.listen_host
    return f"http://{host}:{controller.listen_port}"


def echo_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2))
