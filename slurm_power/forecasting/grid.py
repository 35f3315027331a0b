"""A series on an even grid, as learning forecasters want it: no gaps, and extra columns that were known in time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo

import numpy as np
from numpy.typing import NDArray

from slurm_power.monitoring.local_time import local_times

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """`watts[i]` is the mean from start + i * slot_s; `extras[i]` what was known of the rest of the site at its end."""

    start_wall_s: float
    slot_s: float
    watts: Floats
    known: NDArray[np.bool_]
    """False where `watts` was filled in; such slots are neither learned from nor scored."""

    extras: Floats = field(default_factory=lambda: np.empty((0, 0)))
    """[slots, columns]; no columns: none."""

    period_s: float = DAY_S
    """The "day"."""

    zone: tzinfo = UTC

    @property
    def period(self) -> int:
        """Slots of a day."""
        return max(1, round(self.period_s / self.slot_s))

    def until(self, slot: int) -> Series:
        """Without everything from `slot` on."""
        return self.between(0, slot)

    def between(self, first: int, end: int) -> Series:
        """The slots first <= slot < end alone; their numbers begin anew."""
        kept = slice(first, end)
        return replace(
            self,
            start_wall_s=self.start_wall_s + first * self.slot_s,
            watts=self.watts[kept],
            known=self.known[kept],
            extras=self.extras[kept],
        )

    def calendar(self, slots: Index) -> Floats:
        """[slots, 3]: hour, day of the week, day of the year; the last two are 0 where days are compressed."""
        wall_s = self.start_wall_s + self.slot_s * slots
        if self.period_s != DAY_S:
            zeros = np.zeros(slots.size)
            return np.stack([(wall_s % self.period_s) / self.period_s * 24.0, zeros, zeros], axis=1)
        times = local_times(wall_s, zone=self.zone)
        hour = times.hour + (wall_s % 3600.0) / 3600.0
        return np.stack([hour, (times.day + 4) % 7, times.day % 365.25], axis=1)


def even_series(
    wall_s: Floats,
    watts: Floats,
    *,
    slot_s: float,
    extras: Floats | None = None,
    period_s: float = DAY_S,
    zone: tzinfo = UTC,
) -> Series:
    """Means over slots clocked to the epoch; a gap takes the values of a day before (or the last known one)."""
    slots = np.floor(wall_s / slot_s + 1e-9).astype(np.int64)
    where = slots - slots.min()
    count = int(where.max()) + 1
    filled = np.bincount(where, minlength=count)
    known = filled > 0
    columns = [watts] if extras is None else [watts, *extras.T]
    means = [np.bincount(where, weights=c, minlength=count) / np.maximum(filled, 1) for c in columns]
    period = max(1, round(period_s / slot_s))
    for column in means:
        _fill(column, known, period)
    beside = np.stack(means[1:], axis=1) if len(means) > 1 else np.empty((count, 0))
    return Series(float(slots.min()) * slot_s, slot_s, means[0], known, beside, period_s, zone)


def _fill(column: Floats, known: NDArray[np.bool_], period: int) -> None:
    for slot in np.flatnonzero(~known):
        column[slot] = column[slot - period] if slot >= period else column[slot - 1]
