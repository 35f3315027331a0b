"""Forecasts as they would have been made at each past moment: refitted now and then, calibrated, guarded.

The controller and every judgement of a forecaster use this one path, so a backtest cannot be better than the product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from slurm_power.forecasting.calibration import calibrated
from slurm_power.forecasting.grid import Floats, Index, Series
from slurm_power.forecasting.memory import LearnedMemory, RefitRule
from slurm_power.forecasting.scores import pinball_watts

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
Progress = Callable[[float], None]

_WEEKS_TO_TRUST_ONE = 4
"""Before, a week that was like the one before it says little."""

_CLEARLY_BETTER = 0.9
"""Of the loss of yesterday's load: on short records a smaller lead over some days is chance."""

_WEEKS_TO_TRUST_ALONE = 8
"""Before, what was clearly better is averaged with yesterday's load: it errs less than either on short records."""

_LEAD_SCALE = 0.1
"""So much lead, as a fraction of that loss, and the better one has 73 % of the say; twice as much, 88 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingConfig:
    refit_days: float = 28.0
    """How long a model is used before it learns anew."""

    history_days: float = 500.0
    """How far back it learns from."""

    calibration_days: float = 28.0
    guard_days: float = 7.0
    """The learned model is used only if it clearly beat the naive ones over this many days."""

    threads: int = 1
    """Learning and forecasting may use so many; 0: all. On shared cores, threads that wait for each other lose more
    than they win."""


@dataclass(frozen=True, slots=True, eq=False)
class Rolled:
    """Forecasts [origins, quantiles, slots] from each origin (index of the first slot that was not known yet)."""

    origins: Index
    quantiles: tuple[float, ...]
    watts: Floats
    truth: Floats  # [origins, slots], NaN where unknown or filled in
    learned: np.ndarray  # per origin: whether the learned model was used


def truth_of(series: Series, origins: Index, slots: int) -> Floats:
    measured = np.where(series.known, series.watts, np.nan)
    padded = np.concatenate([measured, np.full(slots, np.nan)])
    found: Floats = padded[origins[:, None] + np.arange(slots)]
    return found


def naive_rolled(
    series: Series, origins: Index, *, slots: int, days_back: int, quantiles: Sequence[float], window_days: float
) -> Floats:
    """Seasonal naive: as it was `days_back` days ago, with bands from its own errors of the last days."""
    period, ahead = series.period, np.arange(slots)
    back = days_back * period
    source = origins[:, None] + ahead - back * (ahead // back + 1)
    points = series.watts[np.maximum(source, 0)]
    flat = np.repeat(points[:, None, :], len(quantiles), axis=1)
    truth = truth_of(series, origins, slots)
    return calibrated(flat, truth, origins, quantiles, window_slots=round(window_days * period), period=period)


def roll(
    series: Series,
    *,
    first: int,
    last: int,
    slots: int,
    quantiles: Sequence[float] = QUANTILES,
    config: RollingConfig = RollingConfig(),
    memory: LearnedMemory | None = None,
    progress: Progress = lambda share: None,
) -> Rolled:
    """Forecasts from every origin first <= o < last. What is made before, only to calibrate, is not returned.

    `memory`: what was learned and forecast before; handed in again, only what is new is made.
    """
    period = series.period
    lead = round(config.calibration_days * period) + slots
    begin = max(first - lead, 8 * period)
    origins = np.arange(begin, last, dtype=np.int64)
    truth = truth_of(series, origins, slots)
    window = round(config.calibration_days * period)
    naives = [
        naive_rolled(
            series, origins, slots=slots, days_back=d, quantiles=quantiles, window_days=config.calibration_days
        )
        for d in (1, 7)
    ]
    raw, made = naives[0].copy(), np.zeros(origins.size, dtype=np.bool_)
    memory = memory or LearnedMemory(slots, quantiles, threads=config.threads)
    rule = RefitRule(after=round(config.refit_days * period), look_back=round(config.history_days * period))
    memory.fill(series, origins, raw, made, rule=rule, progress=progress)
    learned = calibrated(raw, truth, origins, quantiles, window_slots=window, period=period)
    watts, used = _guarded([learned, *naives], truth, origins, quantiles, made, period=period, config=config)
    kept = origins >= first
    return Rolled(origins[kept], tuple(quantiles), watts[kept], truth[kept], used[kept])


def _guarded(
    candidates: Sequence[Floats],
    truth: Floats,
    origins: Index,
    quantiles: Sequence[float],
    made: np.ndarray,
    *,
    period: int,
    config: RollingConfig,
) -> tuple[Floats, np.ndarray]:
    """Each day yesterday's load, the second candidate, unless that with the lowest pinball loss over the last days is
    clearly better. On a short record the two are then averaged, quantile by quantile (Lichtendahl, Grushka-Cockayne and
    Winkler 2013, Management Science 59), and the longer the lead, the more the better one counts. The first candidate
    is the learned one."""
    slots = truth.shape[1]
    found, used = candidates[0].copy(), made.copy()
    week = 7 * period
    for begin in range(0, origins.size, period):
        day = slice(begin, begin + period)
        known_until = origins[begin] - slots
        usable = (origins <= known_until) & (origins > known_until - round(config.guard_days * period))
        best, share = 1, 0.0
        if usable.any() and not np.isnan(truth[usable]).all():
            known = candidates if origins[begin] >= _WEEKS_TO_TRUST_ONE * week else candidates[:2]
            losses = [pinball_watts(c[usable], truth[usable], quantiles) for c in known]
            lowest = int(np.argmin(losses))
            if losses[lowest] < _CLEARLY_BETTER * losses[1]:
                is_short = origins[begin] < _WEEKS_TO_TRUST_ALONE * week
                best, share = lowest, _share(1.0 - losses[lowest] / losses[1]) if is_short else 1.0
        found[day] = share * candidates[best][day] + (1.0 - share) * candidates[1][day]
        used[day] = best == 0 and made[day]
    return found, used


def _share(lead_fraction: float) -> float:
    return 1.0 / (1.0 + math.exp(-lead_fraction / _LEAD_SCALE))
