"""The tariff: what a joule costs when, and what the highest metering interval of a billing period costs."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from slurm_power.errors import require
from slurm_power.ess.rate_parts import Tier
from slurm_power.ess.rates import (
    CoincidentWindows,
    DemandComponent,
    EnergyRate,
    FixedCharge,
    RateGrid,
    mean_price_per_kwh,
)

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyPrice:
    """This price holds from `start_s` of every period until the next entry."""

    start_s: float
    price_per_kwh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """[tariff]. Everything repeats in seconds since the epoch; for a calendar, a daylight-saving rule or several demand
    charges there is the kind "urdb"."""

    kind: Literal["periodic"] = "periodic"

    currency: str = "USD"

    energy_prices: tuple[EnergyPrice, ...]
    """In order of start_s; the first starts at 0. A time before `anchor_wall_s` works too."""

    period_s: float = 86_400.0
    """After this the energy prices repeat (a day)."""

    demand_price_per_kw: float
    """For the highest mean of a metering interval in a billing period, once per billing period."""

    metering_interval_s: float = 900.0
    billing_period_s: float = 30 * 86_400.0

    anchor_wall_s: float = 0.0
    """Any start of a day of prices and of a billing period, as seconds since the epoch."""

    export_price_per_kwh: float = 0.0
    """Nothing is paid for export in this slice; any other value is refused."""

    def __post_init__(self) -> None:
        starts = [price.start_s for price in self.energy_prices]
        require(bool(starts) and starts[0] == 0, "energy_prices", starts, "the first entry must have start_s = 0")
        require(all(a < b for a, b in pairwise(starts)), "energy_prices", starts, "start_s must rise")
        require(starts[-1] < self.period_s, "energy_prices", starts, "start_s must be below period_s")
        for price in self.energy_prices:
            require(price.price_per_kwh >= 0, "price_per_kwh", price.price_per_kwh, "must not be below 0")
        require(self.demand_price_per_kw >= 0, "demand_price_per_kw", self.demand_price_per_kw, "must not be below 0")
        require(self.metering_interval_s > 0, "metering_interval_s", self.metering_interval_s, "must be above 0")
        intervals = self.billing_period_s / self.metering_interval_s
        require(
            intervals >= 1 and abs(intervals - round(intervals)) < 1e-9,
            "billing_period_s",
            self.billing_period_s,
            "must be a whole number of metering intervals",
        )
        require(self.export_price_per_kwh == 0, "export_price_per_kwh", self.export_price_per_kwh, "only 0 is known")

    @property
    def energy_rates(self) -> Sequence[EnergyRate]:
        return tuple(EnergyRate(self._name(p.start_s), (Tier(p.price_per_kwh),)) for p in self.energy_prices)

    @property
    def demand_components(self) -> Sequence[DemandComponent]:
        return (DemandComponent("maximum demand", (Tier(self.demand_price_per_kw),)),)

    @property
    def coincident(self) -> Sequence[CoincidentWindows]:
        return ()

    @property
    def fixed_charges(self) -> Sequence[FixedCharge]:
        return ()

    @property
    def minimum_per_period(self) -> float:
        return 0.0

    @property
    def shortest_price_s(self) -> float:
        ends = [price.start_s for price in self.energy_prices[1:]] + [self.period_s]
        return min(end - price.start_s for price, end in zip(self.energy_prices, ends, strict=True))

    def grid(self, wall_s: npt.ArrayLike) -> RateGrid:
        since_s = np.atleast_1d(np.asarray(wall_s, dtype=np.float64)) - self.anchor_wall_s
        starts = [price.start_s for price in self.energy_prices]
        band = np.searchsorted(starts, since_s % self.period_s, side="right") - 1
        period = np.floor(since_s / self.billing_period_s).astype(np.int64)
        return RateGrid(period, band.astype(np.int64), np.ones((1, since_s.size), dtype=np.bool_))

    def period_of(self, wall_s: float) -> int:
        return math.floor((wall_s - self.anchor_wall_s) / self.billing_period_s)

    def period_start_wall_s(self, period: int) -> float:
        return self.anchor_wall_s + period * self.billing_period_s

    def month_of_year(self, period: int) -> int:
        return period % 12

    def applies(self, component: DemandComponent, period: int) -> bool:
        return True

    def price_at(self, wall_s: float) -> float:
        """Money per kWh imported at `wall_s`."""
        return self.energy_prices[self._band_at(wall_s)].price_per_kwh

    def mean_price_per_kwh(self, *, start_wall_s: float, duration_s: float) -> float:
        return mean_price_per_kwh(self, start_wall_s=start_wall_s, duration_s=duration_s)

    def billing_period_start(self, wall_s: float) -> float:
        return self.period_start_wall_s(self.period_of(wall_s))

    def _name(self, start_s: float) -> str:
        """A price as people call it: by the time of day, where the period is a day."""
        whole_minutes = self.period_s == _DAY_S and start_s % 60 == 0
        minutes = int(start_s // 60)
        return f"from {minutes // 60:02d}:{minutes % 60:02d}" if whole_minutes else f"from {start_s:g} s"

    def _band_at(self, wall_s: float) -> int:
        into_period_s = (wall_s - self.anchor_wall_s) % self.period_s
        return bisect_right([price.start_s for price in self.energy_prices], into_period_s) - 1

    def energy_parts(self, start_wall_s: float, duration_s: float) -> Iterator[tuple[int, float]]:
        """(band, seconds), cut where the price changes."""
        at_s, end_wall_s = start_wall_s, start_wall_s + duration_s
        while at_s < end_wall_s:
            band = self._band_at(at_s)
            period_start_s = at_s - (at_s - self.anchor_wall_s) % self.period_s
            ends = [price.start_s for price in self.energy_prices[1:]] + [self.period_s]
            until_s = min(end_wall_s, period_start_s + ends[band])
            if until_s <= at_s:  # rounding of seconds since the epoch: step over it
                until_s = min(end_wall_s, at_s + 1e-3)
            yield band, until_s - at_s
            at_s = until_s
