"""The battery's energy: one-way efficiencies, standby loss, state of charge window. Pure; power at the AC terminals."""

from __future__ import annotations

from dataclasses import dataclass

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class BatteryConfig:
    """The `[battery]` table."""

    rated_joules: float
    """On the name plate; what it holds when full is this times `health_fraction`."""

    max_charge_watts: float
    max_discharge_watts: float
    charge_efficiency_fraction: float = 0.95
    discharge_efficiency_fraction: float = 0.95
    standby_watts: float = 0.0
    """Drained from the cells all the time (controls, cooling)."""

    min_stored_fraction: float = 0.05
    max_stored_fraction: float = 0.95
    initial_stored_fraction: float = 0.5
    health_fraction: float = 0.98

    def __post_init__(self) -> None:
        for key in ("rated_joules", "max_charge_watts", "max_discharge_watts"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be above 0")
        for key in ("charge_efficiency_fraction", "discharge_efficiency_fraction", "health_fraction"):
            require(0 < getattr(self, key) <= 1, key, getattr(self, key), "must be in (0, 1]")
        require(self.standby_watts >= 0, "standby_watts", self.standby_watts, "must not be negative")
        window = 0 <= self.min_stored_fraction < self.max_stored_fraction <= 1
        require(window, "min_stored_fraction", self.min_stored_fraction, "must be in [0, max_stored_fraction)")
        require(
            self.min_stored_fraction <= self.initial_stored_fraction <= self.max_stored_fraction,
            "initial_stored_fraction",
            self.initial_stored_fraction,
            "must lie in the window of min_stored_fraction and max_stored_fraction",
        )


class Battery:
    def __init__(self, config: BatteryConfig) -> None:
        self.config = config
        self.capacity_joules = config.rated_joules * config.health_fraction
        self.stored_joules = config.initial_stored_fraction * self.capacity_joules

    @property
    def stored_fraction(self) -> float:
        return self.stored_joules / self.capacity_joules

    def jump_to(self, stored_fraction: float) -> None:
        """What a recalibrating battery management system does."""
        self.stored_joules = min(1.0, max(0.0, stored_fraction)) * self.capacity_joules

    def charge(self, watts: float, *, duration_s: float) -> float:
        """Charge for `duration_s`; the mean watts really taken, less where the window ends."""
        room_joules = self.config.max_stored_fraction * self.capacity_joules - self.stored_joules
        possible_watts = max(0.0, room_joules) / self.config.charge_efficiency_fraction / duration_s
        taken_watts = min(watts, self.config.max_charge_watts, possible_watts)
        self.stored_joules += taken_watts * self.config.charge_efficiency_fraction * duration_s
        return taken_watts

    def discharge(self, watts: float, *, duration_s: float) -> float:
        """Discharge for `duration_s`; the mean watts really given, less where the window ends."""
        left_joules = self.stored_joules - self.config.min_stored_fraction * self.capacity_joules
        possible_watts = max(0.0, left_joules) * self.config.discharge_efficiency_fraction / duration_s
        given_watts = min(watts, self.config.max_discharge_watts, possible_watts)
        self.stored_joules -= given_watts / self.config.discharge_efficiency_fraction * duration_s
        return given_watts

    def rest(self, *, duration_s: float) -> None:
        self.stored_joules = max(0.0, self.stored_joules - self.config.standby_watts * duration_s)
