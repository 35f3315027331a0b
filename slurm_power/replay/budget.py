"""Licensed watts that jobs other than firm ones may hold, slot by slot; unlimited after the last slot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class WattsBudget:
    def __init__(self, watts: Sequence[float], *, start_s: float, slot_s: float) -> None:
        self._start_s, self._slot_s = start_s, slot_s
        self._slots = len(watts)
        # Lowest budget from slot `row` to slot `column`; the last row and column are the time after all slots.
        table = np.full((self._slots + 1, self._slots + 1), math.inf)
        table[:, : self._slots] = np.asarray(watts, dtype=np.float64)
        table[np.tril_indices(self._slots + 1, k=-1)] = math.inf
        self._lowest_watts: Floats = np.minimum.accumulate(table, axis=1)

    def lowest_watts(self, start_s: Floats | float, end_s: Floats | float) -> Floats:
        """In the slots that a run from `start_s` to `end_s` reaches into."""
        first = np.clip(np.floor((start_s - self._start_s) / self._slot_s), 0, self._slots).astype(np.intp)
        last = np.clip(np.ceil((end_s - self._start_s) / self._slot_s) - 1, first, self._slots).astype(np.intp)
        return np.asarray(self._lowest_watts[first, last], dtype=np.float64)

    def lowest_watts_once(self, start_s: float, end_s: float) -> float:
        """The same for one run, without the cost of arrays."""
        first = min(max(math.floor((start_s - self._start_s) / self._slot_s), 0), self._slots)
        past_end_s = self._start_s + self._slots * self._slot_s
        last = self._slots if end_s > past_end_s else math.ceil((end_s - self._start_s) / self._slot_s) - 1
        return float(self._lowest_watts[first, min(max(last, first), self._slots)])

    def boundaries_after(self, wall_s: float) -> Floats:
        bounds = self._start_s + self._slot_s * np.arange(1, self._slots + 1, dtype=np.float64)
        return np.asarray(bounds[bounds > wall_s], dtype=np.float64)
