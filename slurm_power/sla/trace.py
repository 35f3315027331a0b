"""A report's curves: a few hundred points of one GPU over the whole time, from any number of readings. Pure.

NaN where nothing is known: a gap stays a gap in the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slurm_power.sla.intervals import Intervals, Mask
from slurm_power.sla.whose import INFRASTRUCTURE, POLICY

Numbers = NDArray[np.float64]

MAX_BINS = 360
MIN_BIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Each array has a value for each bin."""

    begin_wall_s: Numbers
    bin_s: float
    clock_mhz: Numbers  # mean of the loaded time
    clock_low_mhz: Numbers
    clock_high_mhz: Numbers
    margin_celsius: Numbers  # lowest
    draw_watts: Numbers  # mean
    limit_watts: Numbers  # mean
    utilisation_fraction: Numbers  # mean
    infrastructure_fraction: Numbers  # of the known time: held back by heat, brake, a foreign limit
    policy_fraction: Numbers  # held back by the operator's or the user's cap


class TraceTally:
    def __init__(self, begin_wall_s: float, end_wall_s: float, *, slowdown_celsius: float | None) -> None:
        self._begin_s = begin_wall_s
        self._bin_s = max((end_wall_s - begin_wall_s) / MAX_BINS, MIN_BIN_S)
        self._bins = bins = max(1, math.ceil((end_wall_s - begin_wall_s) / self._bin_s))
        self._slowdown_celsius = np.nan if slowdown_celsius is None else slowdown_celsius
        names = ("known", "loaded", "clock", "draw", "drawn", "limit", "limited", "used", "told", "infra", "policy")
        self._sums = {name: np.zeros(bins) for name in names}
        self._low, self._high = np.full(bins, np.inf), np.full(bins, -np.inf)
        self._margin = np.full(bins, np.inf)

    def add(self, intervals: Intervals) -> None:
        samples, seconds = intervals.samples, intervals.seconds
        place = np.clip((samples.wall_s() - self._begin_s) / self._bin_s, 0, self._bins - 1).astype(np.int64)
        known = seconds > 0
        clock = samples["sm_clock_mhz"].astype(np.float64)
        ticking = known & intervals.loaded & np.isfinite(clock)
        self._sum("known", place, seconds, known)
        self._sum("loaded", place, seconds, ticking)
        self._sum("clock", place, clock * seconds, ticking)
        np.minimum.at(self._low, place[ticking], clock[ticking])
        np.maximum.at(self._high, place[ticking], clock[ticking])
        pairs = (("draw_watts", "draw", "drawn"), ("cap_watts", "limit", "limited"))
        for name, total, weight in (*pairs, ("utilisation_fraction", "used", "told")):
            values = samples[name].astype(np.float64)
            use = known & np.isfinite(values)
            self._sum(total, place, values * seconds, use)
            self._sum(weight, place, seconds, use)
        self._sum("infra", place, seconds, known & np.isin(intervals.cause, INFRASTRUCTURE))
        self._sum("policy", place, seconds, known & np.isin(intervals.cause, POLICY))
        told = samples["thermal_margin_celsius"].astype(np.float64)
        margin = np.where(np.isfinite(told), told, self._slowdown_celsius - samples["temperature_celsius"])
        use = known & np.isfinite(margin)
        np.minimum.at(self._margin, place[use], margin[use])

    def trace(self) -> Trace:
        sums = self._sums
        return Trace(
            begin_wall_s=self._begin_s + self._bin_s * np.arange(self._bins, dtype=np.float64),
            bin_s=self._bin_s,
            clock_mhz=_ratio(sums["clock"], sums["loaded"]),
            clock_low_mhz=_finite(self._low),
            clock_high_mhz=_finite(self._high),
            margin_celsius=_finite(self._margin),
            draw_watts=_ratio(sums["draw"], sums["drawn"]),
            limit_watts=_ratio(sums["limit"], sums["limited"]),
            utilisation_fraction=_ratio(sums["used"], sums["told"]),
            infrastructure_fraction=_ratio(sums["infra"], sums["known"]),
            policy_fraction=_ratio(sums["policy"], sums["known"]),
        )

    def _sum(self, name: str, place: NDArray[np.int64], values: Numbers, use: Mask) -> None:
        self._sums[name] += np.bincount(place[use], weights=values[use], minlength=self._bins)


def _ratio(total: Numbers, weight: Numbers) -> Numbers:
    ratio: Numbers = np.full(total.size, np.nan)
    np.divide(total, weight, out=ratio, where=weight > 0)
    return ratio


def _finite(values: Numbers) -> Numbers:
    return np.where(np.isfinite(values), values, np.nan)
