"""A set of row numbers that is an array at any time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.intp]


class RowSet:
    def __init__(self, capacity: int) -> None:
        self._rows = np.zeros(max(1, capacity), dtype=np.intp)
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, row: int) -> bool:
        return row in self._place

    def add(self, row: int) -> None:
        if row not in self._place:
            self._rows[len(self._place)] = row
            self._place[row] = len(self._place)

    def remove(self, row: int) -> None:
        """The last one moves to its place."""
        place = self._place.pop(row)
        last = len(self._place)
        if place != last:
            moved = int(self._rows[last])
            self._rows[place] = moved
            self._place[moved] = place

    @property
    def rows(self) -> Ints:
        """Valid until the next change."""
        return self._rows[: len(self._place)]
