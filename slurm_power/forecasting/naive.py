"""The floor every other forecaster must beat: the last value, yesterday, and yesterday corrected by today.

Quantiles come from the forecaster's own past errors at the same horizon, never from a formula; with too
little history it says so in `model` and uses the stated band.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from slurm_power.forecasting.forecast import QUANTILES, Sample, SeriesForecast
from slurm_power.forecasting.history import Index, Watts, grid_before
from slurm_power.forecasting.settings import ForecastConfig

__all__ = ["ForecastConfig", "NaiveForecaster", "PersistenceForecaster", "SameTimeYesterdayForecaster"]

MAX_PERIODS_BACK = 7
"""How many days back a missing "yesterday" is looked for."""


class _PointForecaster(ABC):
    """A point forecast that can be replayed at every past origin, and the bands from that replay."""

    name: str

    def __init__(self, config: ForecastConfig, *, slot_s: float) -> None:
        self._config = config
        self._slot_s = slot_s
        self._period = max(1, round(config.period_s / slot_s))

    @abstractmethod
    def _points(self, grid: Watts, origins: Index, ahead: int) -> Watts:
        """For each origin (an index into `grid`; what is before it is known) the forecast of slot
        origin + ahead; NaN where it cannot be made."""

    def forecast(self, history: Sequence[Sample], *, start_wall_s: float, slots: int) -> SeriesForecast:
        """Raise ValueError if `history` is empty or reaches `start_wall_s`."""
        config, slot_s = self._config, self._slot_s
        max_slots = round((config.residual_window_s + MAX_PERIODS_BACK * config.period_s) / slot_s)
        grid = grid_before(history, start_wall_s=start_wall_s, slot_s=slot_s, max_slots=max(2, max_slots))
        known = grid[~np.isnan(grid)]
        if not known.size:
            raise ValueError("no history at all: nothing to forecast from")
        now = np.array([grid.size], dtype=np.int64)
        points = np.array([self._points(grid, now, ahead)[0] for ahead in range(slots)])
        missing = np.isnan(points)
        points[missing] = known[-1]
        bands, measured = self._bands(grid, points)
        watts = np.maximum.accumulate(np.maximum(0.0, bands), axis=0)
        return SeriesForecast(
            start_wall_s=start_wall_s,
            slot_s=slot_s,
            watts={q: tuple(row.tolist()) for q, row in zip(QUANTILES, watts, strict=True)},
            errors=self._error_paths(grid, slots, watts[QUANTILES.index(0.5)] - points),
            model=self._model(grid, measured=measured, missing=int(missing.sum())),
        )

    def _bands(self, grid: Watts, points: Watts) -> tuple[Watts, int]:
        """One row of watts per quantile, and for how many slots the band was measured, not stated."""
        config = self._config
        bands = np.empty((len(QUANTILES), points.size))
        measured = 0
        for first, last in _horizon_buckets(points.size):
            errors = self._past_errors(grid, first, last)
            part = points[first:last]
            if errors.size >= config.min_errors:
                measured += last - first
                offsets = np.array([_error_quantile(errors, q) for q in QUANTILES])
                bands[:, first:last] = part[None, :] + offsets[:, None]
            else:
                shares = np.array([config.stated_band_fraction * _STATED_SHAPE[q] for q in QUANTILES])
                bands[:, first:last] = part[None, :] * (1 + shares[:, None])
        return bands, measured

    def _past_errors(self, grid: Watts, first: int, last: int) -> Watts:
        """Actual - forecast at all past origins of the window, for a few horizons of the bucket."""
        window = round(self._config.residual_window_s / self._slot_s)
        origins = np.arange(max(1, grid.size - window), grid.size, dtype=np.int64)
        errors = []
        for ahead in sorted({first, (first + last) // 2, last - 1}):
            usable = origins[origins + ahead < grid.size]
            if usable.size:
                errors.append(grid[usable + ahead] - self._points(grid, usable, ahead))
        pooled = np.concatenate(errors) if errors else np.empty(0)
        return pooled[~np.isnan(pooled)]

    def _error_paths(self, grid: Watts, slots: int, shift: Watts) -> tuple[tuple[float, ...], ...]:
        """What came at this hour of earlier days, minus the median forecast made then (the points moved by `shift`);
        the last day first, days with gaps left out."""
        window = round(self._config.residual_window_s / self._slot_s)
        back = self._period * np.arange(-(-slots // self._period), window // self._period + 1)
        origins = (grid.size - back)[grid.size - back > 0]
        if not origins.size:
            return ()
        ahead = np.arange(slots)
        points = np.stack([self._points(grid, origins, int(slot)) for slot in ahead], axis=1)
        errors = grid[origins[:, None] + ahead] - np.maximum(0.0, points + shift)
        return tuple(tuple(row.tolist()) for row in errors[~np.isnan(errors).any(axis=1)])

    def _model(self, grid: Watts, *, measured: int, missing: int) -> str:
        periods = grid.size * self._slot_s / self._config.period_s
        text = f"{self.name}, {periods:.1f} periods of history"
        if missing:
            text += f", last value for {missing} slots without a yesterday"
        if not measured:
            text += f", stated band of {self._config.stated_band_fraction:.0%}"
        return text


class PersistenceForecaster(_PointForecaster):
    """It stays as it is: the mean of the last known slots."""

    name = "persistence"

    def _points(self, grid: Watts, origins: Index, ahead: int) -> Watts:
        return _mean_before(grid, origins, max(1, round(self._config.bias_window_s / self._slot_s)))


class SameTimeYesterdayForecaster(_PointForecaster):
    """It goes as it went at the same time of the last known day."""

    name = "same time yesterday"

    def _points(self, grid: Watts, origins: Index, ahead: int) -> Watts:
        return _yesterday(grid, origins + ahead, before=origins, period=self._period)


class NaiveForecaster(_PointForecaster):
    """Yesterday's shape, moved by how today has gone so far; the correction fades over the horizon.

    Without a yesterday it is persistence.
    """

    name = "same time yesterday with today's bias"

    def _points(self, grid: Watts, origins: Index, ahead: int) -> Watts:
        yesterday = _yesterday(grid, origins + ahead, before=origins, period=self._period)
        window = max(1, round(self._config.bias_window_s / self._slot_s))
        everywhere = np.arange(grid.size, dtype=np.int64)
        apart = grid - _yesterday(grid, everywhere, before=everywhere, period=self._period)
        bias = np.nan_to_num(_mean_before(apart, origins, window), nan=0.0)
        fading = math.exp(-(ahead + 0.5) * self._slot_s / self._config.bias_decay_s)
        return yesterday + bias * fading


_STATED_SHAPE = {0.1: -1.0, 0.5: 0.0, 0.9: 1.0, 0.95: 1.25}


def _horizon_buckets(slots: int) -> list[tuple[int, int]]:
    """[first, last) horizons that share their errors: 1, 1, 2, 4, 8, ... slots long."""
    edges = [0]
    while edges[-1] < slots:
        edges.append(min(slots, max(1, 2 * edges[-1])))
    return list(pairwise(edges))


def _error_quantile(errors: Watts, q: float) -> float:
    """Empirical quantile with the small-sample correction of split conformal prediction."""
    n = errors.size
    level = min(1.0, max(0.0, q * (n + 1) / n if q > 0.5 else (q * (n + 1) - 1) / n if q < 0.5 else q))
    return float(np.quantile(errors, level))


def _yesterday(grid: Watts, at: Index, *, before: Index, period: int) -> Watts:
    """Value of `at` the fewest whole periods ago that is before the origin and known; NaN if there is none."""
    values = np.full(at.size, np.nan)
    for back in range(1, MAX_PERIODS_BACK + 1):
        index = at - back * period
        usable = np.isnan(values) & (index >= 0) & (index < before)
        values[usable] = grid[index[usable]]
    return values


def _mean_before(series: Watts, origins: Index, window: int) -> Watts:
    """Mean of the known values among the `window` slots before each origin; NaN if none is known."""
    known = ~np.isnan(series)
    sums = np.concatenate(([0.0], np.cumsum(np.where(known, series, 0.0))))
    counts = np.concatenate(([0], np.cumsum(known)))
    lower = np.maximum(0, origins - window)
    n = counts[origins] - counts[lower]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, (sums[origins] - sums[lower]) / np.maximum(n, 1), np.nan)
