"""Time spent at each whole number: means, percentiles and medians of millions of readings in a few kilobytes. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]


def percentile(values: NDArray[Any], seconds: Seconds, fraction: float) -> float | None:
    """The smallest value at or below which `fraction` of the time lies; `values` ascending. None without time."""
    total_s = float(seconds.sum())
    if total_s <= 0:
        return None
    place = int(np.searchsorted(np.cumsum(seconds), fraction * total_s * (1 - 1e-12)))
    return float(values[min(place, len(values) - 1)])


def mean_and_deviation(values: NDArray[Any], seconds: Seconds) -> tuple[float | None, float | None]:
    total_s = float(seconds.sum())
    if total_s <= 0:
        return None, None
    mean = float((values * seconds).sum()) / total_s
    variance = float(((values - mean) ** 2 * seconds).sum()) / total_s
    return mean, variance**0.5


def share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
