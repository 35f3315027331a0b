"""A published rate as a file: the JSON of the Utility Rate Database (URDB), as utilities' tariffs are exchanged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from slurm_power.errors import ConfigError, require
from slurm_power.ess.rate_schedule import RateSchedule
from slurm_power.ess.urdb import parse_urdb


@dataclass(frozen=True, slots=True, kw_only=True)
class RateFileConfig:
    """The `[tariff]` table of kind "urdb": a rate as utilities publish it."""

    kind: Literal["urdb"] = "urdb"

    file: Path
    """JSON in URDB's format."""

    zone: str
    """Of the rate's calendar: its hours, months and holidays."""

    def __post_init__(self) -> None:
        require(bool(self.zone), "zone", self.zone, "must name a time zone, as Europe/Berlin")


def read_rate(file: Path, zone_name: str) -> RateSchedule:
    """Raise ConfigError naming the file."""
    try:
        zone = ZoneInfo(zone_name)
    except (ZoneInfoNotFoundError, ValueError) as cause:
        raise ConfigError(f"time zone {zone_name}: {cause}") from cause
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ConfigError("must hold a JSON object")
        return parse_urdb(raw, zone=zone)
    except (OSError, ValueError) as cause:
        raise ConfigError(f"{file}: {cause}") from cause
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
