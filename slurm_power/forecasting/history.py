"""A history with gaps as an even grid, so that "a day ago" is an index. Unknown slots are NaN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slurm_power.forecasting.forecast import Sample

Watts = NDArray[np.float64]
Index = NDArray[np.int64]


def grid_before(history: Sequence[Sample], *, start_wall_s: float, slot_s: float, max_slots: int) -> Watts:
    """Watts of the slots right before `start_wall_s`, oldest first, from the first known one, NaN where unknown.

    Raise ValueError if anything in `history` is not earlier than `start_wall_s`: no forecaster may see the future.
    """
    if not history:
        return np.empty(0)
    starts = np.fromiter((sample.start_wall_s for sample in history), dtype=np.float64, count=len(history))
    watts = np.fromiter((sample.watts for sample in history), dtype=np.float64, count=len(history))
    if starts.max() >= start_wall_s:
        raise ValueError(f"history reaches {starts.max() - start_wall_s:.0f} s past the start of the forecast")
    back = np.rint((start_wall_s - starts) / slot_s).astype(np.int64)
    kept = (back >= 1) & (back <= max_slots)
    if not kept.any():
        return np.empty(0)
    length = int(back[kept].max())
    grid = np.full(length, np.nan)
    grid[length - back[kept]] = watts[kept]
    return grid
