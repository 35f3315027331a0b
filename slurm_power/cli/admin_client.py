"""Sends an admin's wish to a running controller, with a token, and the options that such commands share."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx

from slurm_power.cli.config_option import config_option
from slurm_power.cli.controller_client import controller_url
from slurm_power.errors import ConfigError, NotPermitted, SlurmPowerError, Unavailable
from slurm_power.site_config import read_site_config
from slurm_power.web.tokens import OWN_HEADER, read_token_lines

F = TypeVar("F", bound=Callable[..., Any])
_ERRORS: dict[int, type[SlurmPowerError]] = {400: ConfigError, 403: NotPermitted}


def admin_options(command: F) -> F:
    """--config, --url, --token-file, --why and --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--why", help="Why, for the decisions that everybody sees. Default: your login name."),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            envvar="SLURM_POWER_TOKEN_FILE",
            help="File with a line `name token`; its first is used. Default: [controller] admin_token_file.",
        ),
        click.option("--url", envvar="SLURM_POWER_URL", help="Controller's address; default: from the config."),
        config_option,
    ):
        command = option(command)
    return command


def send_wish(
    action: str, wish: dict[str, Any], *, config_path: Path, url: str | None, token_file: Path | None, why: str | None
) -> dict[str, Any]:
    """What now holds, as /api/admin answers. Raise what the controller's refusal means here."""
    token = _token(config_path, token_file)
    base = url or controller_url(config_path)
    headers = {OWN_HEADER: "command", "Authorization": f"Bearer {token}"}
    content = {**wish, "why": why or f"asked by {_login()} on the command line"}
    try:
        answer = httpx.post(f"{base.rstrip('/')}/api/admin/{action}", json=content, headers=headers, timeout=10.0)
    except (httpx.HTTPError, httpx.InvalidURL) as cause:
        raise Unavailable(f"no controller answers at {base}: {cause}") from cause
    if answer.status_code != 200:
        raise _ERRORS.get(answer.status_code, Unavailable)(answer.text.strip() or f"HTTP {answer.status_code}")
    found: dict[str, Any] = answer.json()
    return found


def _token(config_path: Path, token_file: Path | None) -> str:
    """The first of the file."""
    if token_file is None:
        from slurm_power.daemons.controller_config import ControllerConfig

        token_file = read_site_config(config_path, only={"controller"}).table(ControllerConfig).admin_token_file
    if token_file is None:
        raise ConfigError("no token: name a file with --token-file, or [controller] admin_token_file in the config")
    return next(iter(read_token_lines(token_file).values()))


def _login() -> str:
    """Who sits there, also behind sudo; only shown, never trusted."""
    return os.environ.get("SUDO_USER") or getpass.getuser()
