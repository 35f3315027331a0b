"""The last word on every battery setpoint: device limits, site limits, and no acting on old readings.

    Following --(meter or PCS reading too old)--> Holding --(longer than hold_s)--> Fallback
        ^------------------------(fresh readings again)---------------------------------'
While holding, a discharge goes on as it was; a charge stops at once, for nobody sees what it adds to the peak.
"""

from __future__ import annotations

from dataclasses import dataclass

from slurm_power.errors import require
from slurm_power.ess.battery import BatteryLimits, chargeable_joules, dischargeable_joules
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.readings import EssReading, GridReading, age_s
from slurm_power.monitoring.site_balance import site_load_watts


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLimits:
    """[site]. Limits of the connection have no default: only the site knows them."""

    grid_limit_watts: float
    """Import that must never be exceeded (fuse, contract)."""

    it_max_watts: float
    """The most that all nodes together may draw."""

    pue: float
    """Grid watts per IT watt: cooling and losses that follow the IT load."""

    max_reading_age_s: float = 15.0
    """Older readings are not acted on."""

    hold_s: float = 60.0
    """How long the last setpoint is held without fresh readings, before standing by."""

    command_s: float = 10.0
    """Time between two battery commands: a setpoint must be sustainable for at least so long."""

    def __post_init__(self) -> None:
        require(self.grid_limit_watts > 0, "grid_limit_watts", self.grid_limit_watts, "must be above 0")
        require(self.it_max_watts > 0, "it_max_watts", self.it_max_watts, "must be above 0")
        require(1.0 <= self.pue < 10, "pue", self.pue, "must be at least 1 and below 10")
        for key in ("max_reading_age_s", "hold_s", "command_s"):
            value = getattr(self, key)
            require(value > 0, key, value, "must be above 0")


@dataclass(frozen=True, slots=True)
class Following:
    """Readings are fresh. `setpoint` is what was sent last."""

    setpoint: EssSetpoint = EssSetpoint()


@dataclass(frozen=True, slots=True)
class Holding:
    """Readings are too old; the last safe setpoint goes on until hold_s is over."""

    setpoint: EssSetpoint
    since_s: float


@dataclass(frozen=True, slots=True)
class Fallback:
    """Too long without readings: stand by."""

    since_s: float


GuardState = Following | Holding | Fallback


@dataclass(frozen=True, slots=True)
class Guarded:
    """What may be sent, what the guard changed (in words), and its state for the next call."""

    setpoint: EssSetpoint
    clamped: tuple[str, ...]
    state: GuardState


def guard_setpoint(
    wanted: EssSetpoint,
    *,
    state: GuardState,
    grid: GridReading | None,
    ess: EssReading | None,
    target_watts: float,
    limits: SiteLimits,
    battery: BatteryLimits,
    now_s: float,
) -> Guarded:
    """Clamp `wanted` to what device and site allow. `now_s` is monotonic, as in the readings.

    `target_watts` is the import that charging may not exceed: the plan's target (never below the incumbent).
    """
    stale = _stale(grid, ess, now_s=now_s, max_age_s=limits.max_reading_age_s)
    if grid is None or ess is None or stale:
        return _without_readings(state, reason=" and ".join(stale), hold_s=limits.hold_s, now_s=now_s)
    if not ess.remote_allowed:
        notes = () if wanted == EssSetpoint() else ("stand by: the PCS is in local mode",)
        return Guarded(EssSetpoint(), notes, Following())
    load_watts = site_load_watts(grid, ess=ess) or 0.0
    import_limit_watts = min(limits.grid_limit_watts, target_watts)
    charge_watts, charge_notes = _clamped(
        "charge",
        wanted.charge_watts,
        {
            "the PCS's rating": min(ess.max_charge_watts, battery.max_charge_watts),
            "a full battery": chargeable_joules(battery, stored_joules=_stored(ess)) / limits.command_s,
            f"the import limit of {import_limit_watts:.0f} W": import_limit_watts - load_watts,
        },
    )
    discharge_watts, discharge_notes = _clamped(
        "discharge",
        wanted.discharge_watts,
        {
            "the PCS's rating": min(ess.max_discharge_watts, battery.max_discharge_watts),
            "an empty battery": dischargeable_joules(battery, stored_joules=_stored(ess)) / limits.command_s,
            "the site's load (no export)": load_watts,
        },
    )
    setpoint = EssSetpoint(charge_watts=charge_watts, discharge_watts=discharge_watts)
    return Guarded(setpoint, charge_notes + discharge_notes, Following(setpoint))


def _stored(ess: EssReading) -> float:
    return ess.stored_fraction * ess.capacity_joules


def _stale(grid: GridReading | None, ess: EssReading | None, *, now_s: float, max_age_s: float) -> list[str]:
    texts = []
    for name, reading in (("meter", grid), ("PCS", ess)):
        if reading is None:
            texts.append(f"{name} unknown")
        elif age_s(reading, now_s=now_s) > max_age_s:
            texts.append(f"{name} reading {age_s(reading, now_s=now_s):.0f} s old")
    return texts


def _without_readings(state: GuardState, *, reason: str, hold_s: float, now_s: float) -> Guarded:
    match state:
        case Following(setpoint):
            held = EssSetpoint(discharge_watts=setpoint.discharge_watts)
            return Guarded(held, (f"hold: {reason}",), Holding(held, since_s=now_s))
        case Holding(setpoint, since_s=since_s) if now_s - since_s <= hold_s:
            return Guarded(setpoint, (f"hold: {reason}",), state)
        case Holding():
            return Guarded(EssSetpoint(), (f"fall back to stand by: {reason}",), Fallback(since_s=now_s))
        case Fallback():
            return Guarded(EssSetpoint(), (f"fall back to stand by: {reason}",), state)


def _clamped(what: str, wanted_watts: float, limits: dict[str, float]) -> tuple[float, tuple[str, ...]]:
    """The lowest of all, and which limit made it so."""
    if wanted_watts <= 0:
        return 0.0, ()
    name, lowest_watts = min(limits.items(), key=lambda item: item[1])
    allowed_watts = max(0.0, lowest_watts)
    if wanted_watts <= allowed_watts:
        return wanted_watts, ()
    return allowed_watts, (f"{what} {wanted_watts:.0f} W -> {allowed_watts:.0f} W: {name}",)
