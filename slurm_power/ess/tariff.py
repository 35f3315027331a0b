"""The tariff: what a joule costs when, and what the highest metering interval of a billing period costs."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from slurm_power.errors import require
from slurm_power.units import kw_from_watts, kwh_from_joules


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyPrice:
    """This price holds from `start_s` of every period until the next entry."""

    start_s: float
    price_per_kwh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """[tariff]. Everything repeats in seconds since the epoch; a calendar or a daylight-saving rule is not here."""

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

    def price_at(self, wall_s: float) -> float:
        """Money per kWh imported at `wall_s`."""
        return self.energy_prices[self._band_at(wall_s)].price_per_kwh

    def mean_price_per_kwh(self, *, start_wall_s: float, duration_s: float) -> float:
        """The price of steady import from `start_wall_s` for `duration_s`."""
        if duration_s <= 0:
            return self.price_at(start_wall_s)
        parts = self._price_parts(start_wall_s, start_wall_s + duration_s)
        return sum(seconds * price for seconds, price in parts) / duration_s

    def billing_period_start(self, wall_s: float) -> float:
        periods = math.floor((wall_s - self.anchor_wall_s) / self.billing_period_s)
        return self.anchor_wall_s + periods * self.billing_period_s

    def _band_at(self, wall_s: float) -> int:
        into_period_s = (wall_s - self.anchor_wall_s) % self.period_s
        return bisect_right([price.start_s for price in self.energy_prices], into_period_s) - 1

    def _price_parts(self, start_wall_s: float, end_wall_s: float) -> Iterator[tuple[float, float]]:
        """(seconds, price) from start to end, cut where the price changes."""
        at_s = start_wall_s
        while at_s < end_wall_s:
            band = self._band_at(at_s)
            period_start_s = at_s - (at_s - self.anchor_wall_s) % self.period_s
            ends = [price.start_s for price in self.energy_prices[1:]] + [self.period_s]
            until_s = min(end_wall_s, period_start_s + ends[band])
            if until_s <= at_s:  # rounding of seconds since the epoch: step over it
                until_s = min(end_wall_s, at_s + 1e-3)
            yield until_s - at_s, self.energy_prices[band].price_per_kwh
            at_s = until_s


@dataclass(frozen=True, slots=True)
class BilledInterval:
    """Energy imported in one metering interval."""

    start_wall_s: float
    length_s: float
    joules: float

    @property
    def average_watts(self) -> float:
        return self.joules / self.length_s


@dataclass(frozen=True, slots=True)
class Bill:
    currency: str
    energy_cost: float
    demand_cost: float
    peak_watts: float  # the highest interval of all
    energy_joules: float

    @property
    def total(self) -> float:
        return self.energy_cost + self.demand_cost


def bill(intervals: Iterable[BilledInterval], *, tariff: Tariff) -> Bill:
    """What the intervals cost: energy at its time's price, and each billing period's highest interval."""
    seen = list(intervals)
    peaks: dict[float, float] = {}
    for interval in seen:
        period = tariff.billing_period_start(interval.start_wall_s)
        peaks[period] = max(peaks.get(period, 0.0), interval.average_watts)
    return Bill(
        currency=tariff.currency,
        energy_cost=math.fsum(_energy_cost(interval, tariff) for interval in seen),
        demand_cost=math.fsum(kw_from_watts(peak) * tariff.demand_price_per_kw for peak in peaks.values()),
        peak_watts=max(peaks.values(), default=0.0),
        energy_joules=math.fsum(interval.joules for interval in seen),
    )


def _energy_cost(interval: BilledInterval, tariff: Tariff) -> float:
    price = tariff.mean_price_per_kwh(start_wall_s=interval.start_wall_s, duration_s=interval.length_s)
    return kwh_from_joules(interval.joules) * price


def metering_intervals(watts: Sequence[float], *, start_wall_s: float, step_s: float) -> list[BilledInterval]:
    """Evenly spaced means as intervals of their own length (a recorded day, a plan)."""
    return [BilledInterval(start_wall_s + i * step_s, step_s, w * step_s) for i, w in enumerate(watts)]
