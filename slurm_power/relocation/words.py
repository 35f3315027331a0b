"""Watts and spans as people read them, for reasons. No clock times: a reason says "in 25 min"."""

from __future__ import annotations


def kilowatts(watts: float) -> str:
    return f"{watts / 1000:.2f} kW"


def span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def when(start_wall_s: float, end_wall_s: float, *, wall_s: float) -> str:
    """ "now for 20 min", "in 25 min for 4.0 h"."""
    begin = "now" if start_wall_s <= wall_s else f"in {span(start_wall_s - wall_s)}"
    return f"{begin} for {span(end_wall_s - max(start_wall_s, wall_s))}"
