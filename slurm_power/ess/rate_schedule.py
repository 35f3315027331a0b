"""A rate schedule on the calendar: months, work and rest days, daylight saving. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, tzinfo

import numpy as np
import numpy.typing as npt

from slurm_power.errors import require
from slurm_power.ess.rate_parts import Lookback, Tiers, YearHours, require_tiers
from slurm_power.ess.rates import (
    CoincidentWindows,
    DemandComponent,
    EnergyRate,
    FixedCharge,
    RateGrid,
    mean_price_per_kwh,
)
from slurm_power.monitoring.local_time import Numbers, local_times, month_start_wall_s

_STEP_S = 900.0


@dataclass(frozen=True, slots=True)
class EnergyPeriod:
    name: str
    hours: YearHours
    tiers: Tiers
    export_price_per_kwh: float = 0.0


@dataclass(frozen=True, slots=True)
class DemandPeriod:
    name: str
    hours: YearHours
    tiers: Tiers
    lookback: Lookback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSchedule:
    """Serves `Rates`. A billing period is a calendar month, numbered from January 1970."""

    name: str
    currency: str = "USD"
    zone: tzinfo = UTC
    holidays: frozenset[date] = frozenset()
    """Count as rest days."""

    metering_interval_s: float = 900.0
    energy: tuple[EnergyPeriod, ...]
    """Every hour of the year belongs to exactly one."""

    demand: tuple[DemandPeriod, ...] = ()
    coincident: tuple[CoincidentWindows, ...] = ()
    fixed_charges: tuple[FixedCharge, ...] = ()
    minimum_per_period: float = 0.0
    notes: tuple[str, ...] = ()
    """What the source says and is not counted here."""

    def __post_init__(self) -> None:
        interval_s = self.metering_interval_s
        divides = interval_s > 0 and 86_400 % interval_s == 0
        require(divides, "metering_interval_s", interval_s, "must divide a day")
        for name, tiers in [(p.name, p.tiers) for p in self.energy] + [(p.name, p.tiers) for p in self.demand]:
            require_tiers(tiers, name)
        hours = [(p.hours.work_days, p.hours.rest_days) for p in self.energy]
        once = bool(hours) and bool(np.all(np.sum(hours, axis=0) == 1))
        require(once, "energy", self.name, "every hour of the year must have exactly one energy price")

    @property
    def energy_rates(self) -> Sequence[EnergyRate]:
        return tuple(EnergyRate(p.name, p.tiers, p.export_price_per_kwh) for p in self.energy)

    @property
    def demand_components(self) -> Sequence[DemandComponent]:
        return tuple(DemandComponent(p.name, p.tiers, p.lookback) for p in self.demand)

    def grid(self, wall_s: npt.ArrayLike) -> RateGrid:
        times = local_times(wall_s, zone=self.zone, holidays=self.holidays)
        energy = np.argmax([period.hours.covers(times) for period in self.energy], axis=0).astype(np.int64)
        demand = np.array([period.hours.covers(times) for period in self.demand], dtype=np.bool_)
        return RateGrid(times.month, energy, demand.reshape(len(self.demand), times.month.size))

    def period_of(self, wall_s: float) -> int:
        return int(local_times(wall_s, zone=self.zone).month[0])

    def period_start_wall_s(self, period: int) -> float:
        return month_start_wall_s(period, zone=self.zone)

    def month_of_year(self, period: int) -> int:
        return period % 12

    @property
    def shortest_price_s(self) -> float:
        return 3600.0

    def applies(self, component: DemandComponent, period: int) -> bool:
        hours = next(p.hours for p in self.demand if p.name == component.name)
        return self.month_of_year(period) in hours.months

    def energy_parts(self, start_wall_s: float, duration_s: float) -> list[tuple[int, float]]:
        """Prices change on the full hour of the zone's clock, so quarters of an hour decide."""
        first = np.floor(start_wall_s / _STEP_S) * _STEP_S
        edges: Numbers = np.arange(first, start_wall_s + max(duration_s, 1e-6), _STEP_S)
        begins, ends = np.maximum(edges, start_wall_s), np.minimum(edges + _STEP_S, start_wall_s + duration_s)
        return list(zip(self.grid(edges).energy.tolist(), np.maximum(0.0, ends - begins).tolist(), strict=True))

    def mean_price_per_kwh(self, *, start_wall_s: float, duration_s: float) -> float:
        return mean_price_per_kwh(self, start_wall_s=start_wall_s, duration_s=duration_s)
