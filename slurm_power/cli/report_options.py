"""What the reports' commands share: how a time is given, and where the samples come from."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import Progress

from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_open import open_store
from slurm_power.errors import ConfigError
from slurm_power.ports.telemetry_store import TelemetryStore
from slurm_power.site_config import SiteConfig
from slurm_power.sla.board import Window

F = TypeVar("F", bound=Callable[..., Any])

_AGO = re.compile(r"(\d+(?:\.\d+)?)(min|h|d)", re.ASCII)
_SECONDS = {"min": 60.0, "h": 3600.0, "d": 86400.0}

FILE = click.Path(dir_okay=False, path_type=Path)


def moment_s(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A moment as seconds since the epoch."""
    del ctx, param
    if value is None:
        return None
    text = value.strip()
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return time.time() - float(ago[1]) * _SECONDS[ago[2]]
        if text.startswith("@"):
            return float(text[1:])
        return datetime.fromisoformat(text).timestamp()  # without a zone: local time, as Slurm's commands take it
    except (ValueError, OverflowError) as cause:
        forms = "2026-11-29T14:00, 2026-11-29T14:00+01:00, @1800000000, 30min, 12h, 7d"
        raise click.BadParameter(f"{value!r} is none of {forms}") from cause


def period_options(command: F) -> F:
    help_since = "Begin: a date and time (local unless a zone is given), or how long ago: 30min, 12h, 7d."
    command = click.option("--until", metavar="WHEN", callback=moment_s, help="End, as --since; default: now.")(command)
    return click.option("--since", metavar="WHEN", callback=moment_s, help=help_since)(command)


def period(since_s: float | None, until_s: float | None, *, default_s: float) -> Window:
    """Raise ConfigError for an empty one."""
    end_s = time.time() if until_s is None else until_s
    begin_s = end_s - default_s if since_s is None else since_s
    if begin_s >= end_s:
        raise ConfigError("--since: must be before --until")
    return Window(begin_s, end_s)


@contextmanager
def opened_store(config: SiteConfig) -> Iterator[TelemetryStore]:
    store = open_store(config.table(StoreConfig))
    try:
        yield store
    finally:
        store.close()


@contextmanager
def progress(what: str, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all. Raise ConfigError when it cannot be written."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}") from cause
