"""The site's TOML file: five tables, strict keys."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from slurm_power.errors import ConfigError, require
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_site.pcs import PcsConfig
from slurm_power.testing.simulated_site.profile import LoadConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig:
    """The `[site]` table."""

    host: str = "127.0.0.1"
    port: int = 0
    """Of the Modbus server; 0 takes a free one, told in `ready_file`."""

    pue: float = 1.2
    """What the site draws for each watt its nodes draw."""

    step_s: float = 0.25
    """How often the physics moves on and a truth row is written."""

    start_wall_s: float | None = None
    """Wall time of the load profile's origin; None is the start of the process."""

    node_state_files: tuple[str, ...] = ()
    """State files of the emulated nodes whose draw is behind this connection."""

    truth_log: str | None = None
    """CSV file with the site's true figures. An existing one is continued, its last stored energy included."""

    ready_file: str | None = None
    """JSON file with host, port, pid and start_wall_s, written once the server listens, removed at the end."""

    control_socket: str | None = None
    """Unix socket for tests: local mode, alarms, silence, state of charge, scale factors."""

    pcs_unit: int = 1
    grid_meter_unit: int = 2
    building_meter_unit: int | None = 3
    meter_import_is_positive: bool = True
    """Sign of W of the grid meter; SunSpec 203 leaves it to the maker."""

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65_535, "port", self.port, "must be in 0..65535")
        require(self.pue >= 1, "pue", self.pue, "must be at least 1")
        require(0.05 <= self.step_s <= 10, "step_s", self.step_s, "must be in 0.05..10")
        units = [unit for unit in (self.pcs_unit, self.grid_meter_unit, self.building_meter_unit) if unit is not None]
        require(all(1 <= unit <= 247 for unit in units), "pcs_unit", units, "Modbus units are 1..247")
        require(len(set(units)) == len(units), "pcs_unit", units, "every device needs its own unit")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSiteConfig:
    site: SiteConfig = field(default_factory=SiteConfig)
    load: LoadConfig
    battery: BatteryConfig
    pcs: PcsConfig


T = TypeVar("T")


def load_site_config(path: Path) -> SimulatedSiteConfig:
    """Raise ConfigError naming file, table, key and rule."""
    try:
        return parse_site_config(tomllib.loads(path.read_text()))
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}") from cause
    except (tomllib.TOMLDecodeError, ConfigError) as cause:
        raise ConfigError(f"{path}: {cause}") from cause


def parse_site_config(tables: Mapping[str, Any]) -> SimulatedSiteConfig:
    known = {"site", "load", "battery", "pcs"}
    if unknown := set(tables) - known:
        raise ConfigError(f"unknown table {sorted(unknown)}; known: {sorted(known)}")
    return SimulatedSiteConfig(
        site=_table(SiteConfig, "site", tables),
        load=_table(LoadConfig, "load", tables),
        battery=_table(BatteryConfig, "battery", tables),
        pcs=_table(PcsConfig, "pcs", tables),
    )


def _table(kind: type[T], name: str, tables: Mapping[str, Any]) -> T:
    given = dict(tables.get(name, {}))
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    if unknown := set(given) - set(known):
        raise ConfigError(f"[{name}] unknown key {sorted(unknown)}; known: {sorted(known)}")
    needed = {key for key, one in known.items() if one.default is MISSING and one.default_factory is MISSING}
    if missing := needed - set(given):
        raise ConfigError(f"[{name}] missing key {sorted(missing)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    try:
        return kind(**values)
    except ConfigError as cause:
        raise ConfigError(f"[{name}] {cause}") from cause
    except TypeError as cause:
        raise ConfigError(f"[{name}] a value has the wrong type: {cause}") from cause
