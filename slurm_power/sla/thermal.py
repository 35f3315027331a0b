"""Thermal headroom: degrees left until the board slows itself down. Pure.

The board's own margin (NVML's T.Limit) where it tells it; else its slowdown temperature less what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slurm_power.sla.board import BoardFacts
from slurm_power.sla.histogram import Seconds, mean_and_deviation, percentile, share
from slurm_power.sla.intervals import Intervals
from slurm_power.sla.thresholds import ThermalThresholds

_LOWEST, _BINS = -100, 300
_CELSIUS = np.arange(_LOWEST, _LOWEST + _BINS)


@dataclass(frozen=True, slots=True)
class ThermalFigures:
    known_s: float
    source: str | None  # "margin" | "slowdown" | None: neither is told
    min_celsius: float | None
    p5_celsius: float | None
    mean_celsius: float | None
    low_s: float  # nearer to the slowdown than the threshold
    hottest_celsius: float | None

    @property
    def low_fraction(self) -> float | None:
        return share(self.low_s, self.known_s)


class ThermalTally:
    def __init__(self, board: BoardFacts, thresholds: ThermalThresholds) -> None:
        self._slowdown_celsius = np.nan if board.slowdown_celsius is None else board.slowdown_celsius
        self._low_celsius = thresholds.low_margin_celsius
        self._seconds: Seconds = np.zeros(_BINS)
        self._low_s = 0.0
        self._told_s = 0.0
        self._min: float | None = None
        self._hottest: float | None = None

    def add(self, intervals: Intervals) -> None:
        samples, seconds = intervals.samples, intervals.seconds
        told, temperature = samples["thermal_margin_celsius"], samples["temperature_celsius"]
        margin = np.where(np.isfinite(told), told, self._slowdown_celsius - temperature)
        use = np.isfinite(margin) & (seconds > 0)
        self._hottest = _highest(self._hottest, temperature)
        if not use.any():
            return
        margin, seconds = margin[use], seconds[use]
        place = np.clip(np.rint(margin).astype(np.int64) - _LOWEST, 0, _BINS - 1)
        self._seconds += np.bincount(place, weights=seconds, minlength=_BINS)
        self._low_s += float(seconds[margin < self._low_celsius].sum())
        self._told_s += float(intervals.seconds[np.isfinite(told)].sum())
        lowest = float(margin.min())
        self._min = lowest if self._min is None else min(self._min, lowest)

    def figures(self) -> ThermalFigures:
        known_s = float(self._seconds.sum())
        mean, _ = mean_and_deviation(_CELSIUS, self._seconds)
        return ThermalFigures(
            known_s=known_s,
            source=None if not known_s else "margin" if self._told_s >= known_s / 2 else "slowdown",
            min_celsius=self._min,
            p5_celsius=percentile(_CELSIUS, self._seconds, 0.05),
            mean_celsius=mean,
            low_s=self._low_s,
            hottest_celsius=self._hottest,
        )


def _highest(so_far: float | None, values: Seconds) -> float | None:
    known = values[np.isfinite(values)]
    if not known.size:
        return so_far
    highest = float(known.max())
    return highest if so_far is None else max(so_far, highest)
