"""What one reading of one GPU says about the quality of its service: the columns that proofs are made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass

CAP_SOURCES = ("found", "user", "lease", "safe", "board")
"""Who asked for the enforced limit, as the agent says it (gpu/caps.py). Their places are stored: only append."""

COLUMNS: dict[str, str] = {
    "sm_clock_mhz": "f",
    "temperature_celsius": "f",
    "thermal_margin_celsius": "f",
    "utilisation_fraction": "f",
    "draw_watts": "f",
    "cap_watts": "f",
    "locked_clock_mhz": "f",
    "power_violation_s": "d",
    "thermal_violation_s": "d",
    "throttle_reasons": "q",
    "cap_source": "b",
}
"""Column -> its type, as `struct` writes it. Unknown is NaN, or -1 in whole numbers; of locked_clock_mhz: no lock."""

UNKNOWN = {"f": float("nan"), "d": float("nan"), "q": -1, "b": -1}


@dataclass(frozen=True, slots=True)
class GpuMoment:
    """One reading. None: not known; of the lock: there is none."""

    wall_s: float
    sm_clock_mhz: float | None = None
    temperature_celsius: float | None = None
    thermal_margin_celsius: float | None = None
    utilisation_fraction: float | None = None
    draw_watts: float | None = None
    cap_watts: float | None = None
    locked_clock_mhz: float | None = None
    power_violation_s: float | None = None
    thermal_violation_s: float | None = None
    throttle_reasons: int | None = None
    cap_source: str | None = None


def source_number(name: str | None) -> int:
    return CAP_SOURCES.index(name) if name in CAP_SOURCES else -1
