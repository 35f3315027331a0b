"""The bill of the open billing period: what is owed by now, and what it comes to if plan and habit go on. Pure.

Gaps are not filled in what is owed; the projection takes the period's mean import for them, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.energy_account import EnergyAccount
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.ess.rate_parts import tiered_cost
from slurm_power.ess.rates import DemandComponent, Rates
from slurm_power.units import kw_from_watts, kwh_from_joules

_DAY_S = 86_400.0
_TELL_GAP_FRACTION = 0.001


@dataclass(frozen=True, slots=True)
class OpenLine:
    name: str
    amount: float
    unit: str
    money: float
    projected_amount: float | None
    projected_money: float | None


@dataclass(frozen=True, slots=True)
class OpenBill:
    currency: str
    start_wall_s: float
    end_wall_s: float
    lines: tuple[OpenLine, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> float:
        return math.fsum(line.money for line in self.lines)

    @property
    def projected_total(self) -> float | None:
        """None as soon as one line cannot be projected."""
        known = [line.projected_money for line in self.lines if line.projected_money is not None]
        return math.fsum(known) if known and len(known) == len(self.lines) else None


def bill_so_far(
    rates: Rates, *, ledger: DemandLedger, account: EnergyAccount, plan: DispatchPlan | None, wall_s: float
) -> OpenBill:
    """Intervals that are not closed yet are not owed yet."""
    book = _OpenPeriod(rates, ledger, account, plan, wall_s)
    lines = [*book.energy(), *book.demand(), *book.fixed()]
    return OpenBill(rates.currency, book.start_s, book.end_s, tuple(lines), tuple(book.notes()))


class _OpenPeriod:
    def __init__(
        self, rates: Rates, ledger: DemandLedger, account: EnergyAccount, plan: DispatchPlan | None, wall_s: float
    ) -> None:
        self._rates, self._ledger, self._account, self._wall_s = rates, ledger, account, wall_s
        self.period = rates.period_of(wall_s)
        self.start_s, self.end_s = rates.period_start_wall_s(self.period), rates.period_start_wall_s(self.period + 1)
        self._slots = _ahead(plan, wall_s, self.end_s)
        self._measured_s = account.measured_s.get(self.period, 0.0)
        indices = range(len(rates.energy_rates))
        self._joules = [account.joules_of(rates, self.period, index) for index in indices]

    @property
    def _mean_watts(self) -> float | None:
        return math.fsum(self._joules) / self._measured_s if self._measured_s > 0 else None

    @property
    def _unmeasured_s(self) -> float:
        closed_s = math.floor((self._wall_s - self.start_s) / self._rates.metering_interval_s)
        return max(0.0, closed_s * self._rates.metering_interval_s - self._measured_s)

    def energy(self) -> list[OpenLine]:
        coming = self._coming_joules()
        if coming is None:
            return [OpenLine("energy", 0.0, "kWh", 0.0, None, None)]
        lines = []
        for index, rate in enumerate(self._rates.energy_rates):
            kwh = kwh_from_joules(self._joules[index])
            ahead = kwh + kwh_from_joules(coming[index])
            if ahead > 0:
                name, tiers = f"energy, {rate.name}", rate.tiers
                lines.append(OpenLine(name, kwh, "kWh", tiered_cost(kwh, tiers), ahead, tiered_cost(ahead, tiers)))
        return lines

    def demand(self) -> list[OpenLine]:
        lines = []
        for component in self._rates.demand_components:
            if not self._rates.applies(component, self.period):
                continue
            kw = kw_from_watts(self._ledger.billed_watts(self._rates, component, self.period))
            ahead = max(kw, kw_from_watts(self._planned_peak_watts(component)))
            tiers = component.tiers
            lines.append(OpenLine(component.name, kw, "kW", tiered_cost(kw, tiers), ahead, tiered_cost(ahead, tiers)))
        return lines

    def fixed(self) -> list[OpenLine]:
        lines = []
        for charge in self._rates.fixed_charges:
            days = (self.end_s - self.start_s) / _DAY_S
            gone = (self._wall_s - self.start_s) / _DAY_S
            amounts = (math.ceil(gone), round(days)) if charge.per_day else (1, 1)
            unit = "days" if charge.per_day else "period"
            so_far, whole = amounts
            lines.append(OpenLine(charge.name, so_far, unit, so_far * charge.price, whole, whole * charge.price))
        return lines

    def notes(self) -> list[str]:
        notes = []
        if self._unmeasured_s > _TELL_GAP_FRACTION * (self._wall_s - self.start_s):
            share = 100 * self._unmeasured_s / max(1.0, self._wall_s - self.start_s)
            notes.append(
                f"{self._unmeasured_s / 3600:.1f} h of this period ({share:.0f} %) were not measured: their energy is "
                "missing in what is owed; the projection takes the mean for them."
            )
        if self._rates.coincident:
            names = ", ".join(rule.name for rule in self._rates.coincident)
            notes.append(f"Not in here: {names}; known only when the utility names its hours.")
        return notes

    def _coming_joules(self) -> list[float] | None:
        """Per energy rate: the plan's import, then the mean; None while there is nothing to go by."""
        mean_watts = self._mean_watts
        if mean_watts is None:
            return None
        coming = [0.0] * len(self._joules)
        for start_s, length_s, watts in self._stretches(mean_watts):
            for index, seconds in self._rates.energy_parts(start_s, length_s):
                coming[index] += watts * seconds
        gap_share = self._unmeasured_s / self._measured_s
        return [ahead + gap_share * known for ahead, known in zip(coming, self._joules, strict=True)]

    def _stretches(self, mean_watts: float) -> list[tuple[float, float, float]]:
        found, at_s = [], self._wall_s
        for slot in self._slots:
            end_s = min(self.end_s, slot.start_wall_s + slot.duration_s)
            if end_s > at_s:
                found.append((at_s, end_s - at_s, slot.grid_import_watts))
                at_s = end_s
        return [*found, (at_s, self.end_s - at_s, mean_watts)] if at_s < self.end_s else found

    def _planned_peak_watts(self, component: DemandComponent) -> float:
        if not self._slots:
            return 0.0
        index = list(self._rates.demand_components).index(component)
        covers = self._rates.grid(np.array([slot.start_wall_s for slot in self._slots])).demand[index]
        return max((slot.grid_import_watts for slot, hit in zip(self._slots, covers, strict=True) if hit), default=0.0)


def _ahead(plan: DispatchPlan | None, wall_s: float, end_s: float) -> Sequence[PlanSlot]:
    """The plan's slots from now to the period's end."""
    slots = () if plan is None else plan.slots
    return [slot for slot in slots if slot.start_wall_s + slot.duration_s > wall_s and slot.start_wall_s < end_s]
