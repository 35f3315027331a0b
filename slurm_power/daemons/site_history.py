"""What the site drew in the past, slot by slot, for the forecaster: kept in memory, refilled from the store."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping

from slurm_power.forecasting.forecast import Sample
from slurm_power.monitoring.slot_averages import SlotAverages
from slurm_power.ports.telemetry_store import Point, TelemetryStore
from slurm_power.relocation.queue_state import QUEUE_FIELDS

MEASUREMENT = "site"
SLOT_MEASUREMENT = "slot"
_LOADS = ("inflexible_watts", "it_wanted_watts")


class SiteHistory:
    """The fast tick adds, the slow tick and the learning read: each call is whole."""

    def __init__(self, *, keep_s: float, slot_s: float, max_gap_s: float, queue_gap_s: float | None = None) -> None:
        """`queue_gap_s`: Slurm is asked less often than the meters."""
        self._keep_s, self._slot_s = keep_s, slot_s
        gaps = dict.fromkeys(_LOADS, max_gap_s) | dict.fromkeys(QUEUE_FIELDS, queue_gap_s or max_gap_s)
        self._series = {name: SlotAverages(slot_s=slot_s, max_gap_s=gap) for name, gap in gaps.items()}
        self._open_slot: int | None = None  # slots before it were told by `closed_slots`
        self._lock = threading.Lock()

    def load(self, store: TelemetryStore, *, wall_s: float) -> int:
        """Read back what was recorded before: whole slots, and what came after the last of them. The number of
        points. Raise Unavailable as the store does."""
        slots = store.read(SLOT_MEASUREMENT, since_wall_s=wall_s - self._keep_s)
        for point in slots:
            self._put(point)
        since_s = slots[-1].wall_s + self._slot_s if slots else wall_s - self._keep_s
        points = store.read(MEASUREMENT, since_wall_s=since_s)
        for point in points:
            self._add(point.wall_s, {name: _number(point, name) for name in _LOADS})
        if slots:
            self._open_slot = math.floor(since_s / self._slot_s + 0.5)
        elif points:
            self._open_slot = math.floor(points[0].wall_s / self._slot_s)
        return len(slots) + len(points)

    def add(self, wall_s: float, *, inflexible_watts: float | None, it_wanted_watts: float | None) -> None:
        self._add(wall_s, {"inflexible_watts": inflexible_watts, "it_wanted_watts": it_wanted_watts})

    def add_queue(self, wall_s: float, state: Mapping[str, float]) -> None:
        """What Slurm knows, by the names of QUEUE_FIELDS."""
        self._add(wall_s, state)

    def closed_slots(self, wall_s: float) -> list[Point]:
        """The slots that are over since the last call, to be recorded: a long history is read back from these."""
        now = math.floor(wall_s / self._slot_s)
        with self._lock:
            first = now if self._open_slot is None else self._open_slot
            self._open_slot = max(first, now)
            points = [self._closed(index * self._slot_s) for index in range(first, now)]
        return [point for point in points if point is not None]

    def inflexible(self) -> list[Sample]:
        return self._samples("inflexible_watts")

    def it_wanted(self) -> list[Sample]:
        """IT load as it would have been if nothing had been held back: what the next day will want again."""
        return self._samples("it_wanted_watts")

    def queue(self, starts_wall_s: Iterable[float]) -> list[list[float]] | None:
        """QUEUE_FIELDS in the slots that begin then; what is unknown stays as it was. None: never heard of."""
        rows: list[list[float]] = []
        last, heard = [0.0] * len(QUEUE_FIELDS), False
        with self._lock:
            for start_s in starts_wall_s:
                means = [self._series[name].mean(start_s) for name in QUEUE_FIELDS]
                heard = heard or any(mean is not None for mean in means)
                last = [old if mean is None else mean for mean, old in zip(means, last, strict=True)]
                rows.append(last)
        return rows if heard else None

    def _add(self, wall_s: float, values: Mapping[str, float | None]) -> None:
        with self._lock:
            for name, value in values.items():
                self._series[name].add(wall_s, value)
                self._series[name].forget_before(wall_s - self._keep_s)

    def _put(self, point: Point) -> None:
        for name, averages in self._series.items():
            value = _number(point, name)
            if value is not None:
                averages.put(point.wall_s, value)

    def _closed(self, start_wall_s: float) -> Point | None:
        means = {name: averages.mean(start_wall_s) for name, averages in self._series.items()}
        known = {name: mean for name, mean in means.items() if mean is not None}
        return Point(SLOT_MEASUREMENT, start_wall_s, known) if known else None

    def _samples(self, name: str) -> list[Sample]:
        with self._lock:
            slots = self._series[name].slots()
        return [Sample(mean.start_wall_s, mean.watts) for mean in slots if mean.watts is not None]


def _number(point: Point, field: str) -> float | None:
    value = point.fields.get(field)
    return float(value) if isinstance(value, int | float) else None
