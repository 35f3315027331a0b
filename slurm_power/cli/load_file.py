"""A load file as commands take it: a table of time and power, as an even series in a zone."""

from __future__ import annotations

from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from slurm_power.errors import ConfigError
from slurm_power.forecasting.grid import Series, even_series
from slurm_power.monitoring.load_table import read_load_table


def zone_of(name: str) -> tzinfo:
    """Raise ConfigError naming the option."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as cause:
        raise ConfigError(f"--tz {name}: {cause}") from cause


def read_series(
    file: Path,
    *,
    column: str | None,
    unit: str | None,
    tz: str,
    slot_min: float | None = None,
    scale: float = 1.0,
) -> Series:
    """Slots are as long as the file's, but a quarter of an hour at least. Raise ConfigError."""
    zone = zone_of(tz)
    with file.open(encoding="utf-8") as lines:
        table = read_load_table(lines, unit=unit, column=column, zone=zone)
    slot_s = slot_min * 60 if slot_min is not None else max(900.0, table.step_s)
    return even_series(table.wall_s, table.watts * scale, slot_s=slot_s, zone=zone)
