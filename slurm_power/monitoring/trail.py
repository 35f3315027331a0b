"""The last hours of a few series as means over short buckets: what a chart shows. Pure; unknown stays unknown."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence


class Trail:
    """Times must not fall back; after a clock step backwards values go into the newest bucket."""

    def __init__(self, names: Sequence[str], *, bucket_s: float, keep_s: float, max_gap_s: float = 0.0) -> None:
        """A silence longer than `max_gap_s`, and than a bucket, is a gap."""
        self._names, self._bucket_s = tuple(names), bucket_s
        self._max_gap_s = max(max_gap_s, 1.5 * bucket_s)
        self._closed: deque[tuple[float, list[float | None]]] = deque(maxlen=max(1, math.ceil(keep_s / bucket_s)))
        self._number: int | None = None
        self._sums = [0.0] * len(self._names)
        self._counts = [0] * len(self._names)

    def add(self, wall_s: float, values: Mapping[str, float | None]) -> None:
        number = math.floor(wall_s / self._bucket_s)
        if self._number is None or number > self._number:
            self._close()
            self._number = number
        for index, name in enumerate(self._names):
            value = values.get(name)
            if value is not None:
                self._sums[index] += value
                self._counts[index] += 1

    def columns(self) -> dict[str, list[float | None]]:
        """`wall_s` (the middle of each bucket) and one column per series, oldest first; the open bucket is left out.
        Across a silence stands a row of unknowns, so that no line is drawn over it."""
        rows: list[tuple[float, list[float | None]]] = []
        for at_s, row in list(self._closed):
            if rows and at_s - rows[-1][0] > self._max_gap_s:
                rows.append((rows[-1][0] + self._bucket_s, [None] * len(self._names)))
            rows.append((at_s, row))
        columns = {name: [row[index] for _, row in rows] for index, name in enumerate(self._names)}
        return {"wall_s": [at_s for at_s, _ in rows], **columns}

    def _close(self) -> None:
        if self._number is not None:
            means = [s / n if n else None for s, n in zip(self._sums, self._counts, strict=True)]
            self._closed.append(((self._number + 0.5) * self._bucket_s, means))
        self._sums, self._counts = [0.0] * len(self._names), [0] * len(self._names)
