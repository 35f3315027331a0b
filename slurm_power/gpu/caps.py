"""The cap one GPU gets: the lowest of all who may limit it, with every source kept. Pure.

Who may limit: what was found on the board (another admin's limit stays in force), the job's user, the
controller's lease, the site-safe cap while no lease holds, and the board's own range, which has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass

CAP_TOLERANCE_WATTS = 1.0
"""Two caps this close are the same: a board may round what it is told."""


@dataclass(frozen=True, slots=True)
class CapSources:
    """What each side asks for. None: asks for nothing."""

    found_watts: float
    min_watts: float
    max_watts: float
    user_watts: float | None = None
    lease_watts: float | None = None
    safe_watts: float | None = None


@dataclass(frozen=True, slots=True)
class EffectiveCap:
    watts: float
    source: str  # "found" | "user" | "lease" | "safe" | "board"
    sources: CapSources


@dataclass(frozen=True, slots=True)
class ClockSources:
    min_mhz: int
    max_mhz: int
    user_mhz: int | None = None
    lease_mhz: int | None = None


@dataclass(frozen=True, slots=True)
class EffectiveClock:
    mhz: int | None  # None: no lock
    source: str  # "found" | "user" | "lease" | "board"
    sources: ClockSources


def effective_cap(sources: CapSources) -> EffectiveCap:
    """The lowest wins; between equals the one named first (found, user, lease, safe)."""
    asked = [
        ("found", sources.found_watts),
        ("user", sources.user_watts),
        ("lease", sources.lease_watts),
        ("safe", sources.safe_watts),
    ]
    source, watts = min(((name, value) for name, value in asked if value is not None), key=lambda pair: pair[1])
    if source != "found" and watts < sources.min_watts:
        # A board may be found below its own minimum only by its own doing; then the found value stays.
        return EffectiveCap(min(sources.min_watts, sources.found_watts), "board", sources)
    if watts > sources.max_watts:
        return EffectiveCap(sources.max_watts, "board", sources)
    return EffectiveCap(watts, source, sources)


def effective_clock(sources: ClockSources) -> EffectiveClock:
    """A lock at or above the board's maximum is no lock."""
    asked = [("user", sources.user_mhz), ("lease", sources.lease_mhz)]
    known = [(name, value) for name, value in asked if value is not None and value < sources.max_mhz]
    if not known:
        return EffectiveClock(None, "found", sources)
    source, mhz = min(known, key=lambda pair: pair[1])
    if mhz < sources.min_mhz:
        return EffectiveClock(sources.min_mhz, "board", sources)
    return EffectiveClock(mhz, source, sources)


def same_cap(left_watts: float, right_watts: float) -> bool:
    return abs(left_watts - right_watts) <= CAP_TOLERANCE_WATTS
