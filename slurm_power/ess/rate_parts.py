"""The parts a rate schedule is made of: tiers, hours of the year, ratchets. Pure; kWh and kW as tariffs print them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from slurm_power.errors import require
from slurm_power.monitoring.local_time import LocalTimes, Truths

ALL_MONTHS = frozenset(range(12))


@dataclass(frozen=True, slots=True)
class Tier:
    price: float
    up_to: float | None = None
    """The amount at which the next tier begins; None: this is the last."""


Tiers = tuple[Tier, ...]


def require_tiers(tiers: Sequence[Tier], key: str) -> None:
    ends = [tier.up_to for tier in tiers]
    require(bool(tiers), key, list(ends), "needs at least one tier")
    finite = [end for end in ends[:-1] if end is not None]
    rising = len(finite) == len(ends) - 1 and all(a < b for a, b in pairwise(finite))
    require(rising, key, ends, "every tier but the last needs an end, and ends must rise")


def tiered_cost(amount: float, tiers: Tiers) -> float:
    """Each part of the amount at its own tier's price."""
    cost, begin = 0.0, 0.0
    for tier in tiers:
        end = amount if tier.up_to is None else min(amount, tier.up_to)
        cost += max(0.0, end - begin) * tier.price
        begin = max(begin, end)
    return cost + max(0.0, amount - begin) * tiers[-1].price


@dataclass(frozen=True, slots=True, eq=False)
class YearHours:
    """Hours of the year, by month of the year (0 is January) and hour of the day: [12, 24] each."""

    work_days: Truths
    rest_days: Truths

    @classmethod
    def always(cls, months: Iterable[int] = ALL_MONTHS) -> YearHours:
        hours = np.zeros((12, 24), dtype=np.bool_)
        hours[sorted(months)] = True
        return cls(hours, hours)

    def covers(self, times: LocalTimes) -> Truths:
        month, hour = times.month_of_year, times.hour
        found: Truths = np.where(times.rest_day, self.rest_days[month, hour], self.work_days[month, hour])
        return found

    @property
    def months(self) -> frozenset[int]:
        """Months of the year in which any hour counts."""
        return frozenset(np.flatnonzero((self.work_days | self.rest_days).any(axis=1)).tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookback:
    """A ratchet: a month is billed for at least this share of the highest interval of earlier months, at any hour.

    KEPCO's: fraction 1, range 11 months, the months of summer and winter, floor 30 % of the contract.
    """

    fraction: float
    range_months: int = 11
    """How many months before this one are looked at."""

    months: frozenset[int] = ALL_MONTHS
    """Of the year (0 is January): only these set a ratchet."""

    floor_watts: float = 0.0
    """Billed in any case, a share of the contract for instance."""

    def __post_init__(self) -> None:
        require(0 <= self.fraction <= 1, "lookback.fraction", self.fraction, "must be within 0 and 1")
        require(self.range_months >= 0, "lookback.range_months", self.range_months, "must not be below 0")
        require(self.floor_watts >= 0, "lookback.floor_watts", self.floor_watts, "must not be below 0")


Matrix = npt.NDArray[np.int64]


def hours_of(value: int, work_days: Matrix, rest_days: Matrix) -> YearHours:
    """The hours at which a [12, 24] schedule of period numbers says `value`."""
    return YearHours(work_days == value, rest_days == value)
