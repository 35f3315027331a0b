"""Rates in URDB's format, made up for tests: energy at 0.1 per kWh, 10 per kW at any hour, and what is added."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

FLAT_RATE: dict[str, Any] = {
    "name": "flat",
    "energyratestructure": [[{"rate": 0.1}]],
    "energyweekdayschedule": [[0] * 24] * 12,
    "energyweekendschedule": [[0] * 24] * 12,
    "flatdemandstructure": [[{"rate": 10.0}]],
    "flatdemandmonths": [0] * 12,
}


def dear_hours(hours: Collection[int], *, price_per_kw: float = 20.0, weekends: bool = False) -> dict[str, Any]:
    """The keys for a demand charge of these hours besides."""
    day = [1 if hour in hours else 0 for hour in range(24)]
    return {
        "demandratestructure": [[{"rate": 0.0}], [{"rate": price_per_kw}]],
        "demandweekdayschedule": [day] * 12,
        "demandweekendschedule": [day if weekends else [0] * 24] * 12,
    }
