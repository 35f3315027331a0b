"""Rates: what energy and demand cost when, whoever wrote them down. Planner, bill and battery loop read this.

`Tariff` (periodic seconds, for compressed days) and `RateSchedule` (a calendar, as utilities publish) both serve it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from slurm_power.ess.rate_parts import Lookback, Tiers
from slurm_power.monitoring.local_time import Numbers, Truths, Whole

ANY_HOUR = "any hour"
"""The name under which the highest interval of a billing period is kept, whatever its hour."""


@dataclass(frozen=True, slots=True)
class DemandComponent:
    """One demand charge: the highest metering interval among its hours, once per billing period."""

    name: str
    tiers: Tiers  # money per kW
    lookback: Lookback | None = None


@dataclass(frozen=True, slots=True)
class EnergyRate:
    """Energy of the same price; tiers count its kWh within a billing period."""

    name: str
    tiers: Tiers  # money per kWh
    export_price_per_kwh: float = 0.0


@dataclass(frozen=True, slots=True)
class FixedCharge:
    name: str
    price: float
    per_day: bool  # False: per billing period


@dataclass(frozen=True, slots=True)
class CoincidentWindows:
    """Charged for the mean import in the utility's own peak windows, (start, end) in seconds since the epoch, of a
    billing period: ERCOT's 4CP, once it is known when they were or will be."""

    name: str
    price_per_kw: float
    windows: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class RateGrid:
    """Where points in time fall: one entry per point."""

    period: Whole  # index of the billing period
    energy: Whole  # index into energy_rates
    demand: Truths  # [components, points]


class Rates(Protocol):
    @property
    def currency(self) -> str: ...

    @property
    def metering_interval_s(self) -> float: ...

    @property
    def energy_rates(self) -> Sequence[EnergyRate]: ...

    @property
    def demand_components(self) -> Sequence[DemandComponent]: ...

    @property
    def coincident(self) -> Sequence[CoincidentWindows]: ...

    @property
    def fixed_charges(self) -> Sequence[FixedCharge]: ...

    @property
    def minimum_per_period(self) -> float: ...

    @property
    def shortest_price_s(self) -> float:
        """No energy price lasts less: an interval not longer than this has at most two."""
        ...

    def grid(self, wall_s: npt.ArrayLike) -> RateGrid: ...

    def period_of(self, wall_s: float) -> int:
        """Billing periods have numbers that rise by one."""
        ...

    def period_start_wall_s(self, period: int) -> float: ...

    def month_of_year(self, period: int) -> int:
        """0 is January; periods of a `Tariff` without calendar count on from 0."""
        ...

    def applies(self, component: DemandComponent, period: int) -> bool:
        """Whether any hour of the billing period belongs to the component."""
        ...

    def energy_parts(self, start_wall_s: float, duration_s: float) -> Iterable[tuple[int, float]]:
        """(index into energy_rates, seconds) that the time from `start_wall_s` is made of."""
        ...

    def mean_price_per_kwh(self, *, start_wall_s: float, duration_s: float) -> float: ...


def mean_price_per_kwh(rates: Rates, *, start_wall_s: float, duration_s: float) -> float:
    """The price of steady import from `start_wall_s` for `duration_s`, in the last tier."""
    parts = list(rates.energy_parts(start_wall_s, duration_s))
    whole_s = sum(seconds for _, seconds in parts)
    if whole_s <= 0:
        return float(import_prices(rates, start_wall_s)[0])
    energy_rates = rates.energy_rates
    return sum(seconds * energy_rates[rate].tiers[-1].price for rate, seconds in parts) / whole_s


def import_prices(rates: Rates, wall_s: npt.ArrayLike) -> Numbers:
    """Money per kWh at each point in time, in the last tier: a managed site is beyond the small ones."""
    prices = np.array([rate.tiers[-1].price for rate in rates.energy_rates])
    found: Numbers = prices[rates.grid(wall_s).energy]
    return found


def mean_prices(rates: Rates, start_wall_s: Numbers, duration_s: Numbers) -> Numbers:
    """Money per kWh of each stretch of time; only those in which the price changes are cut up."""
    prices = import_prices(rates, start_wall_s)
    at_end = import_prices(rates, start_wall_s + np.maximum(0.0, duration_s - 1e-3))
    for i in np.flatnonzero((prices != at_end) | (duration_s > rates.shortest_price_s)).tolist():
        prices[i] = rates.mean_price_per_kwh(start_wall_s=float(start_wall_s[i]), duration_s=float(duration_s[i]))
    return prices


@dataclass(frozen=True, slots=True, eq=False)
class DemandCharge:
    """One component in one billing period, as a planner sees it over its slots."""

    component: int
    name: str
    period: int
    price_per_kw: float
    covers: Truths  # per slot


def demand_charges(rates: Rates, wall_s: npt.ArrayLike) -> tuple[DemandCharge, ...]:
    """The components that the slots starting at `wall_s` can raise, priced in their last tier."""
    grid = rates.grid(wall_s)
    charges = []
    for period in np.unique(grid.period).tolist():
        for index, component in enumerate(rates.demand_components):
            covers = grid.demand[index] & (grid.period == period)
            price = component.tiers[-1].price
            if covers.any() and (price > 0 or component.lookback is not None):
                charges.append(DemandCharge(index, component.name, period, price, covers))
    return tuple(charges)
