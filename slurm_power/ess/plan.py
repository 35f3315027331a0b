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
    limit_watts: float | None = None  # the grid import we defend in this slot; None: the plan's target
    charge_limit_watts: float | None = None  # the import that charging may reach; None: the limit
    promised: bool = False  # the limit holds even below what is billed already
    it_uncovered_watts: float = 0.0  # beyond it_shed_watts, how much less IT would have to draw for the limit to hold


@dataclass(frozen=True, slots=True)
class DispatchPlan:
    """Never "infeasible": what could not be met is in `shortfalls`, in words, with watts."""

    made_wall_s: float
    target_watts: float  # the grid import we defend now; each slot has its own limit
    slots: tuple[PlanSlot, ...]
    cost: float  # money over the horizon, as planned
    shortfalls: tuple[str, ...] = ()
    margin: float | None = None  # how far above the median forecast, in its upper bands; None: a fixed quantile

    def limit_watts_at(self, wall_s: float) -> float:
        """The limit of the slot at `wall_s`; outside the plan its target."""
        slot = self.slot_at(wall_s)
        return self.target_watts if slot is None or slot.limit_watts is None else slot.limit_watts

    def slot_at(self, wall_s: float) -> PlanSlot | None:
        for slot in self.slots:
            if slot.start_wall_s <= wall_s < slot.start_wall_s + slot.duration_s:
                return slot
        return None
