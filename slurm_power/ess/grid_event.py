"""Grid events: for some hours the utility lets a site import only so much. Shaped as OpenADR 3 sends them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from slurm_power.errors import ConfigError, require
from slurm_power.monitoring.local_time import Numbers

_LIMIT = "IMPORT_CAPACITY_LIMIT"
_WATTS = {"W": 1.0, "KW": 1e3, "MW": 1e6}
_DURATION = re.compile(
    r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridEvent:
    """Import stays at or under `limit_watts` from `start_wall_s` on. Ahead of it, and after it, the limit moves along a
    ramp from and to `ramp_from_watts`, so that neither the fall nor the rebound is a step."""

    name: str
    start_wall_s: float
    duration_s: float
    limit_watts: float
    ramp_s: float = 0.0
    ramp_from_watts: float | None = None
    """Where the ramp begins: what the site may import without the event. None: no ramp."""

    def __post_init__(self) -> None:
        require(self.duration_s > 0, "duration", self.duration_s, "must be above 0")
        require(self.limit_watts >= 0, "limit", self.limit_watts, "must not be below 0")
        require(self.ramp_s >= 0, "ramp", self.ramp_s, "must not be below 0")

    def limits(self, wall_s: Numbers) -> Numbers:
        """Watts at each time; infinite where the event says nothing."""
        end_s = self.start_wall_s + self.duration_s
        early_s = np.maximum(self.start_wall_s - wall_s, wall_s - end_s)  # below 0 during the event
        if self.ramp_s <= 0 or self.ramp_from_watts is None:
            return np.where(early_s < 0, self.limit_watts, np.inf)
        share = np.clip(early_s / self.ramp_s, 0.0, 1.0)
        ramp = self.limit_watts + share * max(0.0, self.ramp_from_watts - self.limit_watts)
        return np.where(early_s >= self.ramp_s, np.inf, ramp)


def event_limits(events: Sequence[GridEvent], start_wall_s: Numbers, duration_s: Numbers) -> Numbers:
    """Per slot the lowest limit of all events while it lasts."""
    limits = np.full(start_wall_s.size, np.inf)
    for event in events:
        for share in (0.0, 0.5, 0.999):
            limits = np.minimum(limits, event.limits(start_wall_s + share * duration_s))
    return limits


def parse_events(raw: object, *, ramp_s: float = 0.0, ramp_from_watts: float | None = None) -> tuple[GridEvent, ...]:
    """A list of OpenADR 3 event objects (or one). Of their payloads IMPORT_CAPACITY_LIMIT counts, in the unit that the
    event's payloadDescriptors state (kW without one); others are left alone. Raise ConfigError naming what is wrong.
    """
    found: list[GridEvent] = []
    for event in raw if isinstance(raw, list) else [raw]:
        if not isinstance(event, Mapping):
            raise ConfigError("grid events: must be a list of event objects")
        name = str(event.get("eventName") or event.get("id") or "event")
        try:
            found += _intervals(event, name, ramp_s, ramp_from_watts)
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise ConfigError(f"grid event {name!r}: {type(cause).__name__} {cause}") from cause
    return tuple(found)


def _intervals(event: Mapping[str, Any], name: str, ramp_s: float, ramp_from_watts: float | None) -> list[GridEvent]:
    factor = 1e3
    for descriptor in event.get("payloadDescriptors") or []:
        if descriptor.get("payloadType") == _LIMIT and "units" in descriptor:
            factor = _WATTS[str(descriptor["units"]).upper()]
    found: list[GridEvent] = []
    at_s, length_s = None, 0.0
    for interval in event["intervals"]:
        period = interval.get("intervalPeriod") or (event.get("intervalPeriod") if at_s is None else None)
        if period is not None:
            at_s, length_s = _moment(period["start"]), _seconds(period.get("duration") or "PT0S")
        if at_s is None:
            raise ValueError("has no intervalPeriod")
        for payload in interval["payloads"]:
            if payload["type"] == _LIMIT:
                found.append(
                    GridEvent(
                        name=name,
                        start_wall_s=at_s,
                        duration_s=length_s,
                        limit_watts=float(payload["values"][0]) * factor,
                        ramp_s=ramp_s,
                        ramp_from_watts=ramp_from_watts,
                    )
                )
        at_s += length_s
    return found


def _moment(text: str) -> float:
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if when.tzinfo is None:
        raise ValueError(f"{text}: must state its zone")
    return when.timestamp()


def _seconds(text: str) -> float:
    """ISO 8601, days and smaller."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text}: not a duration as PT3H")
    days, hours, minutes, seconds = (float(part or 0.0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
