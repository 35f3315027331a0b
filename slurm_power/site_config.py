"""Reads etc/slurm-power.toml and hands each table to the part that owns it. No part sees TOML.

Strict: an unknown table or key, a missing value, a wrong type and a broken rule each stop with one line
`FILE: [table] key = value: rule`. Secrets are file paths, never values.
"""

from __future__ import annotations

import importlib
import stat
import tomllib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from slurm_power.errors import ConfigError

OWNERS: Mapping[str, str] = {
    "site": "ess.guard:SiteLimits",
    "tariff": "ess.tariff:Tariff",
    "battery": "ess.battery:BatteryLimits",
    "planner": "ess.planner_config:PlannerConfig",
    "forecast": "forecasting.settings:ForecastConfig",
    "relocation": "relocation.settings:RelocationConfig",
    "pcs": "adapters.ess_sunspec:SunSpecEssConfig",
    "meter": "adapters.meter_sunspec:SunSpecMeterConfig",
    "parts": "adapters.meter_open:PartsConfig",
    "grid_signal": "adapters.grid_signal:GridSignalConfig",
    "store": "adapters.telemetry_config:StoreConfig",
    "energy": "adapters.energy_config:EnergyConfig",
    "slurm": "adapters.slurm_config:SlurmConfig",
    "agent": "daemons.node_agent_config:NodeAgentConfig",
    "controller": "daemons.controller_config:ControllerConfig",
    "serving_pools": "daemons.pool_config:PoolConfig",
    "router": "daemons.router_config:RouterConfig",
}
"""Table -> the dataclass that owns it. Names, so that an agent does not load the planner's solver."""

OTHER_KINDS: Mapping[str, tuple[str, ...]] = {
    "tariff": ("adapters.rate_file:RateFileConfig",),
    "meter": (
        "adapters.meter_snmp:SnmpMeterConfig",
        "adapters.meter_redfish:RedfishMeterConfig",
        "adapters.meter_open:PartsMeterConfig",
    ),
}
"""Tables that another dataclass owns when their `kind` says so."""

OPTIONAL = frozenset({"parts", "grid_signal", "energy", "serving_pools", "router"})
"""Tables that most sites do without."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """The tables of one file; ask for one by the class that owns it."""

    path: Path
    tables: Mapping[type, object]
    given: Mapping[str, frozenset[str]]  # by table: the keys that stand in the file

    def table(self, owner: type[T]) -> T:
        """Raise ConfigError when the file has no such table and the table has values without a default."""
        if owner not in self.tables:
            name = next(name for name in OWNERS if owner_of(name) is owner)
            return _build(owner, {}, where=f"{self.path}: [{name}]")
        return cast(T, self.tables[owner])

    def chosen(self, name: str) -> object:
        """The table `name` with whichever of its owners it has. Raise ConfigError as `table` does."""
        given = [owner for owner in owners_of(name) if owner in self.tables]
        return self.table(given[0] if given else owner_of(name))


def owner_of(table: str) -> type:
    return _load(OWNERS[table])


def owners_of(table: str) -> tuple[type, ...]:
    """All that may own it; the first does when the table names no kind."""
    return (owner_of(table), *map(_load, OTHER_KINDS.get(table, ())))


def _load(owner: str) -> type:
    module, _, name = owner.partition(":")
    return cast(type, getattr(importlib.import_module(f"slurm_power.{module}"), name))


def read_site_config(path: Path, *, only: Collection[str] = tuple(OWNERS)) -> SiteConfig:
    """Read the tables in `only`, and refuse tables that nobody owns.

    Raise ConfigError for anything that a person must mend: one line, naming key, value and rule.
    """
    raw = _read_toml(path)
    for name, values in raw.items():
        if name not in OWNERS:
            raise ConfigError(f"{path}: [{name}]: unknown table; known are {', '.join(OWNERS)}")
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {name} = {values!r}: must be a table, [{name}]")
    tables: dict[type, object] = {}
    for name in (name for name in only if name in raw):
        where = f"{path}: [{name}]"
        owner = _of_kind(owners_of(name), raw[name], where=where)
        tables[owner] = _build(owner, raw[name], where=where)
        needed = getattr(owner, "NEEDS_TABLE", None)
        if needed is not None and needed not in raw:
            raise ConfigError(f"{where} kind = {raw[name]['kind']}: needs the table [{needed}]")
    return SiteConfig(path, tables, {name: frozenset(values) for name, values in raw.items()})


def read_dataclass(path: Path, owner: type[T]) -> T:
    """A file of its own, beside the site's: its tables are `owner`'s fields. Raise ConfigError as above."""
    return _build(owner, _read_toml(path), where=f"{path}:")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(f"{path}: anybody may write it; run chmod o-w {path}")
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path}: not TOML: {cause}") from cause


def _build(owner: type[T], values: Mapping[str, Any], *, where: str) -> T:
    known = {field.name: field for field in fields(cast(Any, owner)) if field.init}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where} {key} = {values[key]}: unknown key; known are {', '.join(known)}")
    for key, field in known.items():
        if key not in values and _has_no_default(field):
            raise ConfigError(f"{where} {key}: missing; it has no default")
    hints = get_type_hints(owner)
    arguments = {key: _convert(value, hints[key], where=f"{where} {key}") for key, value in values.items()}
    try:
        return owner(**arguments)
    except ConfigError as cause:
        raise ConfigError(f"{where} {cause}") from cause


def _of_kind(owners: tuple[type, ...], values: Mapping[str, Any], *, where: str) -> type:
    """Of several owners the one whose `kind` the table names."""
    if len(owners) == 1:
        return owners[0]
    kinds = {get_args(get_type_hints(owner)["kind"])[0]: owner for owner in owners}
    return kinds[_one_of(values.get("kind", next(iter(kinds))), tuple(kinds), where=f"{where} kind")]


def _has_no_default(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _convert(value: Any, hint: Any, *, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = tuple(arg for arg in get_args(hint) if arg is not type(None))
        several = len(options) > 1 and isinstance(value, dict)
        return _convert(value, _of_kind(options, value, where=where) if several else options[0], where=where)
    if origin is Literal:
        return _one_of(value, get_args(hint), where=where)
    if origin is tuple:
        return _convert_array(value, get_args(hint)[0], where=where)
    if origin is Mapping and isinstance(value, dict):
        return {key: _convert(item, get_args(hint)[1], where=f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(hint) and isinstance(value, dict):
        return _build(cast(type, hint), value, where=where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(_one_of(value, tuple(member.value for member in hint), where=where))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise ConfigError(f"{where} = {value!r}: must be {_describe(hint)}")


def _convert_array(value: Any, item_hint: Any, *, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} = {value!r}: must be an array")
    return tuple(_convert(item, item_hint, where=f"{where}[{index}]") for index, item in enumerate(value))


def _one_of(value: Any, allowed: tuple[Any, ...], *, where: str) -> Any:
    if value not in allowed:
        raise ConfigError(f"{where} = {value!r}: must be one of {', '.join(map(str, allowed))}")
    return value


def _describe(hint: Any) -> str:
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", Path: "a path"}
    return names.get(hint, "a table" if is_dataclass(hint) or get_origin(hint) is Mapping else str(hint))
