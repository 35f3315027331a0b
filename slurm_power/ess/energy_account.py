"""What was imported in each billing period under each energy price. Frozen plain numbers: it survives a restart.

Only what was measured is counted; how long that was is kept beside it, so that what is missing can be told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from slurm_power.ess.rates import Rates
from slurm_power.monitoring.metering import ClosedInterval

KEPT_PERIODS = 3

_MEASURED = "measured_s"


@dataclass(frozen=True, slots=True)
class EnergyAccount:
    """(billing period, energy rate) -> joules; `measured_s` by billing period."""

    joules: Mapping[tuple[int, str], float] = field(default_factory=dict)
    measured_s: Mapping[int, float] = field(default_factory=dict)

    def with_interval(self, rates: Rates, interval: ClosedInterval) -> EnergyAccount:
        """An interval belongs to the period in which it begins; what was measured of it is spread over its length."""
        if interval.known_s <= 0:
            return self
        period = rates.period_of(interval.start_wall_s)
        joules = {key: value for key, value in self.joules.items() if key[0] > period - KEPT_PERIODS}
        for index, seconds in rates.energy_parts(interval.start_wall_s, interval.length_s):
            key = (period, rate_key(rates, index))
            joules[key] = joules.get(key, 0.0) + interval.joules * seconds / interval.length_s
        measured = {one: value for one, value in self.measured_s.items() if one > period - KEPT_PERIODS}
        measured[period] = measured.get(period, 0.0) + interval.known_s
        return EnergyAccount(joules, measured)

    def joules_of(self, rates: Rates, period: int, index: int) -> float:
        return self.joules.get((period, rate_key(rates, index)), 0.0)

    def of_period(self, period: int) -> float | None:
        """Joules in all; None before anything was measured."""
        if period not in self.measured_s:
            return None
        return math.fsum(value for key, value in self.joules.items() if key[0] == period)

    def to_records(self) -> list[dict[str, float | int | str]]:
        found: list[dict[str, float | int | str]] = [
            {"period": period, "rate": rate, "amount": joules} for (period, rate), joules in sorted(self.joules.items())
        ]
        found += [{"period": one, "rate": _MEASURED, "amount": value} for one, value in sorted(self.measured_s.items())]
        return found

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, float | int | str | bool | None]]) -> EnergyAccount:
        """Read back `to_records`. Raise ValueError for anything that is not such a record."""
        joules, measured = {}, {}
        for record in records:
            try:
                period, rate, amount = int(str(record["period"])), str(record["rate"]), float(str(record["amount"]))
            except (KeyError, ValueError) as cause:
                raise ValueError(f"not an account of energy: {dict(record)}") from cause
            if rate == _MEASURED:
                measured[period] = amount
            else:
                joules[period, rate] = amount
        return cls(joules, measured)


def rate_key(rates: Rates, index: int) -> str:
    """A rate whose name or place changes in the config is another rate."""
    return f"{index} {rates.energy_rates[index].name}"
