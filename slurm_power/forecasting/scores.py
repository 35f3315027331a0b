"""How good a forecast was: pinball loss, coverage, and whether it saw the day's peak. Pure arithmetic on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slurm_power.forecasting.grid import Floats


@dataclass(frozen=True, slots=True)
class Scores:
    pinball_watts: float  # mean over quantiles
    coverage_80: float | None  # share of truths between the quantiles 0.1 and 0.9
    coverage_95: float | None  # share of truths below the quantile 0.95
    peak_mape_fraction: float  # of the daily peak
    peak_hour_hit_fraction: float  # days whose highest slot was foreseen within an hour


def pinball_watts(forecast: Floats, truth: Floats, quantiles: Sequence[float]) -> float:
    """`forecast` [origins, quantiles, slots], `truth` [origins, slots], NaN where unknown."""
    apart = truth[:, None, :] - forecast
    q = np.asarray(quantiles)[None, :, None]
    return float(np.nanmean(np.maximum(q * apart, (q - 1) * apart)))


def score(forecast: Floats, truth: Floats, quantiles: Sequence[float], *, slot_s: float) -> Scores:
    """For day-ahead forecasts: one origin a day, the day's slots."""
    level = {q: forecast[:, i] for i, q in enumerate(quantiles)}
    median = level[min(level, key=lambda q: abs(q - 0.5))]
    known = ~np.isnan(truth)
    whole = known.all(axis=1)
    peak, seen = truth[whole].max(axis=1), median[whole].max(axis=1)
    hours = np.abs(truth[whole].argmax(axis=1) - median[whole].argmax(axis=1)) * slot_s / 3600.0
    inside = None
    if 0.1 in level and 0.9 in level:
        inside = float(((truth >= level[0.1]) & (truth <= level[0.9]))[known].mean())
    return Scores(
        pinball_watts=pinball_watts(forecast, truth, quantiles),
        coverage_80=inside,
        coverage_95=float((truth <= level[0.95])[known].mean()) if 0.95 in level else None,
        peak_mape_fraction=float(np.mean(np.abs(peak - seen) / np.maximum(peak, 1e-9)))
        if whole.any()
        else float("nan"),
        peak_hour_hit_fraction=float(np.mean(hours <= 1.0)) if whole.any() else float("nan"),
    )
