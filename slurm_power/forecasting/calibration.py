"""Split-conformal calibration on a rolling window: bands shifted until past truths fell below them as said."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from slurm_power.forecasting.grid import Floats, Index

_MIN_ERRORS = 40


def horizon_groups(slots: int, period: int) -> list[tuple[int, int]]:
    """Half-open ranges of horizons whose errors are alike: the next slots apart, then coarser and coarser."""
    edges, step = [0], 1
    while edges[-1] < slots:
        edges.append(min(slots, edges[-1] + step))
        step = min(2 * step, max(1, period // 4))
    return list(pairwise(edges))


def shifts(errors: Floats, quantiles: Sequence[float], groups: Sequence[tuple[int, int]]) -> Floats:
    """[quantiles, slots] to add. `errors` [origins, quantiles, slots]: truth minus forecast, NaN where unknown.

    The level is (1 + 1/n) q, which makes the coverage of n exchangeable errors at least q.
    """
    found = np.zeros(errors.shape[1:])
    for begin, end in groups:
        for i, q in enumerate(quantiles):
            part = errors[:, i, begin:end].ravel()
            part = part[~np.isnan(part)]
            if part.size >= _MIN_ERRORS:
                found[i, begin:end] = np.quantile(part, min(1.0, (1 + 1 / part.size) * q))
    return found


def calibrated(
    forecast: Floats, truth: Floats, origins: Index, quantiles: Sequence[float], *, window_slots: int, period: int
) -> Floats:
    """The forecasts [origins, quantiles, slots] with each day's shifts from the window before that day.

    `truth` [origins, slots]. Only forecasts whose whole horizon lay before the day began are learned from.
    """
    slots = forecast.shape[2]
    groups = horizon_groups(slots, period)
    errors = truth[:, None, :] - forecast
    found = forecast.copy()
    for begin in range(0, origins.size, period):
        known_until = origins[begin] - slots
        usable = (origins <= known_until) & (origins > known_until - window_slots)
        if usable.any():
            found[begin : begin + period] += shifts(errors[usable], quantiles, groups)
    found.sort(axis=1)
    return np.maximum(found, 0.0)
