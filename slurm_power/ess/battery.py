"""The battery's limits and what its stored energy can still do. Power is at the AC side, energy inside the cells."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class BatteryLimits:
    """[battery]. Ratings have no default: only the site knows them."""

    capacity_joules: float
    """Energy between empty and full cells."""

    max_charge_watts: float
    max_discharge_watts: float

    min_stored_fraction: float = 0.1
    """Never discharged below this."""

    max_stored_fraction: float = 0.95
    """Never charged above this."""

    reserve_fraction: float = 0.1
    """Of the capacity, kept above the minimum by every plan, for the peak that nobody forecast."""

    charge_efficiency: float = 0.95
    """Joules stored per joule taken in."""

    discharge_efficiency: float = 0.95
    """Joules given per joule taken out of store."""

    standby_loss_watts: float = 0.0
    """What the cells lose all the time: their own discharge, and what their electronics take of it."""

    wear_cost_per_kwh: float = 0.0
    """Money per kWh discharged; 0 plans as if cells did not age."""

    def __post_init__(self) -> None:
        require(self.capacity_joules > 0, "capacity_joules", self.capacity_joules, "must be above 0")
        require(self.max_charge_watts >= 0, "max_charge_watts", self.max_charge_watts, "must not be below 0")
        require(self.max_discharge_watts >= 0, "max_discharge_watts", self.max_discharge_watts, "must not be below 0")
        require(
            0 <= self.min_stored_fraction < self.max_stored_fraction <= 1,
            "min_stored_fraction",
            self.min_stored_fraction,
            "must be in [0, max_stored_fraction), and max_stored_fraction at most 1",
        )
        require(
            0 <= self.reserve_fraction <= self.max_stored_fraction - self.min_stored_fraction,
            "reserve_fraction",
            self.reserve_fraction,
            "must fit between min_stored_fraction and max_stored_fraction",
        )
        for key in ("charge_efficiency", "discharge_efficiency"):
            value = getattr(self, key)
            require(0 < value <= 1, key, value, "must be in (0, 1]")
        require(self.standby_loss_watts >= 0, "standby_loss_watts", self.standby_loss_watts, "must not be below 0")
        require(self.wear_cost_per_kwh >= 0, "wear_cost_per_kwh", self.wear_cost_per_kwh, "must not be below 0")

    @classmethod
    def sized(cls, watts: float, *, hours: float, ac_to_ac_efficiency: float) -> BatteryLimits:
        """A battery of `watts` for `hours`, without a reserve; its losses fall on both ways alike."""
        one_way = math.sqrt(ac_to_ac_efficiency)
        return cls(
            capacity_joules=watts * hours * 3600.0,
            max_charge_watts=watts,
            max_discharge_watts=watts,
            reserve_fraction=0.0,
            charge_efficiency=one_way,
            discharge_efficiency=one_way,
        )

    def holding(self, capacity_joules: float) -> BatteryLimits:
        """With what it says it holds (rating times state of health), if that is less: cells age."""
        return replace(self, capacity_joules=min(self.capacity_joules, capacity_joules))

    @property
    def half_full_joules(self) -> float:
        """Halfway between minimum and maximum."""
        return 0.5 * (self.min_stored_joules + self.max_stored_joules)

    @property
    def min_stored_joules(self) -> float:
        return self.min_stored_fraction * self.capacity_joules

    @property
    def max_stored_joules(self) -> float:
        return self.max_stored_fraction * self.capacity_joules

    @property
    def reserve_stored_joules(self) -> float:
        """Plans stay at or above this."""
        return (self.min_stored_fraction + self.reserve_fraction) * self.capacity_joules


def dischargeable_joules(battery: BatteryLimits, *, stored_joules: float) -> float:
    """What the AC side can still get until the minimum is reached."""
    return max(0.0, stored_joules - battery.min_stored_joules) * battery.discharge_efficiency


def chargeable_joules(battery: BatteryLimits, *, stored_joules: float) -> float:
    """What the AC side can still put in until the maximum is reached."""
    return max(0.0, battery.max_stored_joules - stored_joules) / battery.charge_efficiency


def usable_discharge_watts(battery: BatteryLimits, *, stored_joules: float, duration_s: float) -> float:
    """What the battery can give for the whole of `duration_s`."""
    energy_joules = dischargeable_joules(battery, stored_joules=stored_joules)
    return min(battery.max_discharge_watts, energy_joules / duration_s)


def usable_charge_watts(battery: BatteryLimits, *, stored_joules: float, duration_s: float) -> float:
    """What the battery can take for the whole of `duration_s`."""
    energy_joules = chargeable_joules(battery, stored_joules=stored_joules)
    return min(battery.max_charge_watts, energy_joules / duration_s)


def stored_after(
    battery: BatteryLimits, *, stored_joules: float, charge_watts: float, discharge_watts: float, duration_s: float
) -> float:
    """What is stored when both have gone on for `duration_s`."""
    into_watts = charge_watts * battery.charge_efficiency - discharge_watts / battery.discharge_efficiency
    return max(0.0, stored_joules + (into_watts - battery.standby_loss_watts) * duration_s)


def equivalent_full_cycles(battery: BatteryLimits, *, discharged_joules: float) -> float:
    """Discharged energy (AC side) as cycles of the whole capacity."""
    return discharged_joules / battery.discharge_efficiency / battery.capacity_joules
