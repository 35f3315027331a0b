"""Numbers as people read them: kW, %, ages. Unknown is a dash."""

from __future__ import annotations

import time

from slurm_power.units import kw_from_watts, kwh_from_joules, percent_from_fraction

UNKNOWN = "-"


def kw(watts: float | None) -> str:
    return UNKNOWN if watts is None else f"{kw_from_watts(watts):.2f} kW"


def kwh(joules: float | None) -> str:
    return UNKNOWN if joules is None else f"{kwh_from_joules(joules):.3f} kWh"


def percent(fraction: float | None) -> str:
    return UNKNOWN if fraction is None else f"{percent_from_fraction(fraction):.0f} %"


def age(age_s: float | None) -> str:
    if age_s is None:
        return UNKNOWN
    if age_s < 120:
        return f"{age_s:.1f} s"
    return f"{age_s / 60:.0f} min" if age_s < 7200 else f"{age_s / 3600:.1f} h"


def clock_time(wall_s: float | None) -> str:
    """Local time with its zone."""
    return UNKNOWN if wall_s is None else time.strftime("%H:%M:%S %Z", time.localtime(wall_s))


def printable(text: str) -> str:
    """A user's text without control characters: it may not move the admin's cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)
