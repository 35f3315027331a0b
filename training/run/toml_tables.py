"""Strict TOML: tables become frozen dataclasses. An unknown key, a missing one, a wrong type and a broken rule each
stop with one line `FILE: [table] key = value: rule`."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from training.errors import ConfigError

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Raise ConfigError for a file that cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path}: not TOML: {cause}") from cause


def build(owner: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """`values` as an `owner`, a dataclass whose fields are values or other dataclasses (tables)."""
    known = {field.name: field for field in fields(cast(Any, owner))}
    hints = get_type_hints(owner)
    for key, value in values.items():
        if key not in known:
            is_table = isinstance(value, dict)
            text = f"[{key}]: unknown table" if is_table else f"{key} = {value}: unknown key"
            raise ConfigError(f"{where} {text}; known are {', '.join(known)}")
    for key, field in known.items():
        if key not in values and _has_no_default(field):
            text = f"[{key}]: missing table" if is_dataclass(hints[key]) else f"{key}: missing; it has no default"
            raise ConfigError(f"{where} {text}")
    arguments = {key: _value(values[key], hints[key], where=where, key=key) for key in values}
    try:
        return owner(**arguments)
    except ConfigError as cause:
        raise ConfigError(f"{where} {cause}") from cause


def _value(value: Any, hint: Any, *, where: str, key: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} {key} = {value!r}: must be a table, [{key}]")
        return build(cast(type, hint), value, where=f"{where} [{key}]")
    return convert(value, hint, where=f"{where} {key}")


def convert(value: Any, hint: Any, *, where: str) -> Any:
    """`value` as a `hint`: a scalar type, a Path, a Literal, or a union of these."""
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for choice in choices:
        fits, converted = _try(value, choice)
        if fits:
            return converted
    raise ConfigError(f"{where} = {value!r}: must be {' or '.join(_words(c) for c in choices if c is not type(None))}")


def _try(value: Any, hint: Any) -> tuple[bool, Any]:
    if get_origin(hint) is Literal:
        return value in get_args(hint), value
    if hint is Path:
        return isinstance(value, str) and value != "", Path(str(value)).expanduser()
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number, float(value) if is_number else None
    return type(value) is hint, value


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(hint))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}[hint]


def _has_no_default(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
