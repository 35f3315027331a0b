"""Counters that count joules and start over: what was drawn between two looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    joules: float
    wraps_joules: float  # what it counts to before it starts over at zero


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """Counters of parts that do not contain each other, by the part's name."""

    counters: Mapping[str, EnergyCounter]
    taken_at_s: float


def watts_between(before: EnergyReading, after: EnergyReading, *, most_watts: float) -> float | None:
    """Mean draw of all parts together. None where that is not known: the parts are not the same, no time has passed,
    or so much that a part drawing `most_watts` could have gone round its counter and past its old value."""
    elapsed_s = after.taken_at_s - before.taken_at_s
    if elapsed_s <= 0 or before.counters.keys() != after.counters.keys() or not after.counters:
        return None
    total_joules = 0.0
    for name, counter in after.counters.items():
        if elapsed_s * most_watts >= counter.wraps_joules:
            return None
        counted_joules = counter.joules - before.counters[name].joules
        total_joules += counted_joules if counted_joules >= 0 else counted_joules + counter.wraps_joules
    return total_joules / elapsed_s
