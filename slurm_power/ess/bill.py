"""The bill: what metering intervals cost under any rates, line by line. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.rate_parts import tiered_cost
from slurm_power.ess.rates import Rates
from slurm_power.monitoring.local_time import Numbers
from slurm_power.units import kw_from_watts, kwh_from_joules


@dataclass(frozen=True, slots=True)
class BilledInterval:
    """Energy imported, and exported, in one metering interval."""

    start_wall_s: float
    length_s: float
    joules: float
    exported_joules: float = 0.0

    @property
    def average_watts(self) -> float:
        return self.joules / self.length_s


@dataclass(frozen=True, slots=True)
class BillLine:
    """`amount` times `price` is the money; with several tiers `price` is their mean."""

    period_start_wall_s: float
    kind: str  # energy, demand, coincident, export, fixed, minimum
    name: str
    amount: float
    unit: str
    price: float
    money: float
    peak_wall_s: float | None = None  # when the interval began that set a demand line
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bill:
    currency: str
    lines: tuple[BillLine, ...]
    peak_watts: float  # the highest interval of all
    energy_joules: float
    ledger: DemandLedger = field(default_factory=DemandLedger)
    """With these intervals' peaks: the state in which the next bill begins."""

    def cost_of(self, *kinds: str) -> float:
        return math.fsum(line.money for line in self.lines if line.kind in kinds)

    @property
    def energy_cost(self) -> float:
        return self.cost_of("energy")

    @property
    def demand_cost(self) -> float:
        return self.cost_of("demand", "coincident")

    @property
    def total(self) -> float:
        return math.fsum(line.money for line in self.lines)


def bill(intervals: Iterable[BilledInterval], *, tariff: Rates, ledger: DemandLedger | None = None) -> Bill:
    """What the intervals cost. `ledger`: peaks of earlier months, which ratchets look back at."""
    seen = list(intervals)
    before = DemandLedger() if ledger is None else ledger
    if not seen:
        return Bill(tariff.currency, (), 0.0, 0.0, before)
    book = _Book(seen, tariff, before)
    lines: list[BillLine] = []
    for period in np.unique(book.period).tolist():
        of_period = [*book.energy(period), *book.demand(period), *book.coincident(period), *book.fixed(period)]
        lines += [*of_period, *book.minimum(period, of_period)]
    return Bill(
        currency=tariff.currency,
        lines=tuple(lines),
        peak_watts=float(book.watts.max()),
        energy_joules=math.fsum(book.joules.tolist()),
        ledger=book.ledger,
    )


class _Book:
    """The intervals as arrays, with the lines that can be drawn from them."""

    def __init__(self, intervals: Sequence[BilledInterval], rates: Rates, before: DemandLedger) -> None:
        self.rates = rates
        self.start_s = np.array([i.start_wall_s for i in intervals])
        self.length_s = np.array([i.length_s for i in intervals])
        self.joules = np.array([i.joules for i in intervals])
        self.exported = np.array([i.exported_joules for i in intervals])
        self.watts = self.joules / self.length_s
        self._grid = rates.grid(self.start_s)
        self.period = self._grid.period
        self._shares = self._energy_shares()
        self.ledger = self._after(before)

    def energy(self, period: int) -> list[BillLine]:
        inside, lines = self.period == period, []
        for index, rate in enumerate(self.rates.energy_rates):
            joules = math.fsum((self.joules * self._shares[index])[inside].tolist())
            if joules > 0:
                kwh = kwh_from_joules(joules)
                lines.append(self._line(period, "energy", rate.name, kwh, "kWh", tiered_cost(kwh, rate.tiers)))
            exported = kwh_from_joules(math.fsum((self.exported * self._shares[index])[inside].tolist()))
            if exported > 0:
                paid = -exported * rate.export_price_per_kwh
                lines.append(self._line(period, "export", rate.name, exported, "kWh", paid))
        return lines

    def demand(self, period: int) -> list[BillLine]:
        """Components that no interval of the period touches are billed only for what a ratchet asks."""
        lines = []
        for component in self.rates.demand_components:
            peak = self.ledger.peaks.get((period, component.name))
            own_watts = 0.0 if peak is None else peak.watts
            floor_watts = self.ledger.ratchet_watts(self.rates, component, period)
            kw = kw_from_watts(max(own_watts, floor_watts))
            if peak is None and not self.rates.applies(component, period):
                continue
            if kw > 0:
                line = self._line(period, "demand", component.name, kw, "kW", tiered_cost(kw, component.tiers))
                own = f"ratchet: this month's own is {kw_from_watts(own_watts):.1f} kW"
                note = own if floor_watts > own_watts else ""
                lines.append(replace(line, peak_wall_s=None if peak is None else peak.start_wall_s, note=note))
        return lines

    def coincident(self, period: int) -> list[BillLine]:
        lines = []
        for rule in self.rates.coincident:
            means = [self._mean_watts(*window) for window in rule.windows if self.rates.period_of(window[0]) == period]
            known = [mean for mean in means if mean is not None]
            if known:
                kw = kw_from_watts(math.fsum(known) / len(known))
                note = f"mean of {len(known)} windows"
                lines.append(self._line(period, "coincident", rule.name, kw, "kW", kw * rule.price_per_kw, note))
        return lines

    def fixed(self, period: int) -> list[BillLine]:
        inside = self.period == period
        seconds = math.fsum(self.length_s[inside].tolist())
        days = max(1, round(seconds / 86_400))
        return [
            self._line(period, "fixed", charge.name, days, "days", days * charge.price)
            if charge.per_day
            else self._line(period, "fixed", charge.name, 1, "month", charge.price)
            for charge in self.rates.fixed_charges
        ]

    def minimum(self, period: int, lines: Sequence[BillLine]) -> list[BillLine]:
        least = self.rates.minimum_per_period
        missing = least - math.fsum(line.money for line in lines)
        wanted = least > 0 and missing > 0
        return [self._line(period, "minimum", "to the minimum bill", 1, "month", missing)] if wanted else []

    def _line(
        self, period: int, kind: str, name: str, amount: float, unit: str, money: float, note: str = ""
    ) -> BillLine:
        start = self.rates.period_start_wall_s(period)
        return BillLine(start, kind, name, amount, unit, money / amount if amount else 0.0, money, None, note)

    def _energy_shares(self) -> Numbers:
        """[energy rates, intervals]: the part of each interval that falls under each rate."""
        n = self.start_s.size
        shares = np.zeros((len(self.rates.energy_rates), n))
        shares[self._grid.energy, np.arange(n)] = 1.0
        at_end = self.rates.grid(self.start_s + self.length_s - 1e-3).energy
        mixed = (at_end != self._grid.energy) | (self.length_s > self.rates.shortest_price_s)
        for i in np.flatnonzero(mixed).tolist():
            shares[:, i] = 0.0
            for rate, seconds in self.rates.energy_parts(float(self.start_s[i]), float(self.length_s[i])):
                shares[rate, i] += seconds / self.length_s[i]
        return shares

    def _after(self, ledger: DemandLedger) -> DemandLedger:
        """With the highest interval of each period and component; only candidates are handed on, not every interval."""
        member = np.vstack([np.ones_like(self.period, dtype=np.bool_)[None, :], self._grid.demand])
        candidates: set[int] = set()
        for period in np.unique(self.period).tolist():
            for row in member:
                at = np.flatnonzero(row & (self.period == period))
                if at.size:
                    candidates.add(int(at[np.argmax(self.watts[at])]))
        for i in sorted(candidates):
            start_s, watts = float(self.start_s[i]), float(self.watts[i])
            ledger = ledger.with_interval(self.rates, start_wall_s=start_s, watts=watts)
        return ledger

    def _mean_watts(self, start_s: float, end_s: float) -> float | None:
        overlap = np.minimum(self.start_s + self.length_s, end_s) - np.maximum(self.start_s, start_s)
        overlap = np.maximum(0.0, overlap)
        return float(self.watts @ overlap / overlap.sum()) if overlap.sum() > 0 else None


def metering_intervals(watts: Sequence[float], *, start_wall_s: float, step_s: float) -> list[BilledInterval]:
    """Evenly spaced means as intervals of their own length (a recorded day, a plan)."""
    return [BilledInterval(start_wall_s + i * step_s, step_s, w * step_s) for i, w in enumerate(watts)]
