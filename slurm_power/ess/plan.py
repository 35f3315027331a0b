"""The dispatch plan: decisions not yet applied, slot by slot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlanSlot:
    start_wall_s: float
    duration_s: float
    grid_import_watts: float
    charge_watts: float
    discharge_watts: float
    stored_joules: float  # at the end of the slot
    inflexible_watts: float  # the forecast planned with
    it_wanted_watts: float  # IT draw if nobody were held back
    it_shed_watts: float  # of it, what the plan asks relocation to keep away
    envelope_watts: float  # IT load may draw this much and the target holds
    price_per_kwh: float
    it_recovered_watts: float = 0.0  # work held back earlier that the plan runs here, beyond it_wanted_watts


@dataclass(frozen=True, slots=True)
class DispatchPlan:
    """Never "infeasible": what could not be met is in `shortfalls`, in words, with watts."""

    made_wall_s: float
    target_watts: float  # the grid import we defend from now to the end of the billing period
    slots: tuple[PlanSlot, ...]
    cost: float  # money over the horizon, as planned
    shortfalls: tuple[str, ...] = ()

    def slot_at(self, wall_s: float) -> PlanSlot | None:
        for slot in self.slots:
            if slot.start_wall_s <= wall_s < slot.start_wall_s + slot.duration_s:
                return slot
        return None
