"""A config file with some values replaced from the command line, so that a requeued job may run under another plan."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.errors import ConfigError
from training.run.config import RunConfig
from training.run.toml_tables import build, read_toml


def read_config_with(path: Path, *, parallel: str | None = None, settings: Iterable[str] = ()) -> RunConfig:
    """`parallel`: `pipeline=2,data=4`, over [parallel]; `settings`: `optimizer.steps=100`, each over one key.

    Raise ConfigError for anything that a person must mend, in one line.
    """
    values = read_toml(path)
    for table, key, value in [*_parallel(parallel), *map(_setting, settings)]:
        owner = values.setdefault(table, {})
        if not isinstance(owner, dict):
            raise ConfigError(f"{path}: {table} = {owner!r}: must be a table, [{table}]")
        owner[key] = value
    return build(RunConfig, values, where=f"{path}:")


def _parallel(text: str | None) -> list[tuple[str, str, Any]]:
    pairs = [pair for pair in (text or "").split(",") if pair]
    return [("parallel", *_pair(pair, f"--parallel {text}", "as pipeline=2,data=4")) for pair in pairs]


def _setting(text: str) -> tuple[str, str, Any]:
    name, value = _pair(text, f"--set {text}", "as optimizer.steps=100")
    table, dot, key = name.partition(".")
    if not (dot and table and key):
        raise ConfigError(f"--set {text}: must be table.key=value, as optimizer.steps=100")
    return table, key, value


def _pair(text: str, where: str, example: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (equals and key.strip() and value.strip()):
        raise ConfigError(f"{where}: must be key=value, {example}")
    return key.strip(), _value(value.strip())


def _value(text: str) -> Any:
    """As TOML has it; what is no TOML value is text, so that quotes need not be quoted again."""
    try:
        read: Mapping[str, Any] = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if set(read) == {"value"} else text
