"""What each demand charge has billed already, and where import becomes a new peak. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.rates import Rates, demand_charges
from slurm_power.monitoring.local_time import Numbers, Truths


@dataclass(frozen=True, slots=True, eq=False)
class DemandBound:
    """One demand charge in one billing period: only import above `billed_watts`, in its hours, costs."""

    name: str
    price_per_kw: float
    covers: Truths  # per slot
    billed_watts: float


def demand_bounds(
    rates: Rates, ledger: DemandLedger, wall_s: Sequence[float] | Numbers, *, floor_watts: float = 0.0
) -> tuple[DemandBound, ...]:
    """The charges that slots starting at `wall_s` can raise, and what later months will pay for their peak.

    A ratchet counts as billed; so does `floor_watts`.
    """
    own = [
        DemandBound(
            charge.name,
            charge.price_per_kw,
            charge.covers,
            max(floor_watts, ledger.billed_watts(rates, rates.demand_components[charge.component], charge.period)),
        )
        for charge in demand_charges(rates, wall_s)
        if charge.price_per_kw > 0
    ]
    return (*own, *_later_months(rates, ledger, wall_s, floor_watts))


def _later_months(
    rates: Rates, ledger: DemandLedger, wall_s: Sequence[float] | Numbers, floor_watts: float
) -> list[DemandBound]:
    """For each ratchet: the highest interval of this month, at any hour, against the months that set it so far.

    Priced as one later month's charge: more may pay for it, or none, if they set their own peaks.
    """
    period_of_slot = rates.grid(wall_s).period
    found = []
    for component in rates.demand_components:
        rule, price = component.lookback, component.tiers[-1].price
        if rule is None or rule.range_months == 0 or rule.fraction * price <= 0:
            continue
        for period in np.unique(period_of_slot).tolist():
            if rates.month_of_year(period) in rule.months:
                earlier = range(period - rule.range_months + 1, period + 1)
                set_by = [ledger.peak_watts(p) for p in earlier if rates.month_of_year(p) in rule.months]
                name = f"ratchet of {component.name}"
                billed = max(floor_watts, *set_by)
                found.append(DemandBound(name, rule.fraction * price, period_of_slot == period, billed))
    return found


def billed_watts_at(rates: Rates, ledger: DemandLedger, wall_s: float) -> float:
    """Import at `wall_s` that raises no demand charge: the lowest of what is billed already for that hour; infinite
    where no demand charge counts."""
    bounds = demand_bounds(rates, ledger, [wall_s])
    return min((bound.billed_watts for bound in bounds if bound.covers.any()), default=math.inf)


def slot_limits(bounds: Sequence[DemandBound], levels_watts: Numbers, slots: int) -> Numbers:
    """Per slot the lowest of `levels_watts` (one per charge) among the charges that cover it; infinite without any."""
    limits = np.full(slots, np.inf)
    for bound, level in zip(bounds, levels_watts, strict=True):
        limits[bound.covers] = np.minimum(limits[bound.covers], level)
    return limits
