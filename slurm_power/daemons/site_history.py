"""What the site drew in the past, slot by slot, for the forecaster: kept in memory, refilled from the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from slurm_power.forecasting.forecast import Sample
from slurm_power.monitoring.slot_averages import slot_averages
from slurm_power.ports.telemetry_store import Point, TelemetryStore

MEASUREMENT = "site"


class SiteHistory:
    def __init__(self, *, keep_s: float, slot_s: float, max_gap_s: float) -> None:
        self._keep_s, self._slot_s, self._max_gap_s = keep_s, slot_s, max_gap_s
        self._rows: deque[tuple[float, float | None, float | None]] = deque()

    def load(self, store: TelemetryStore, *, wall_s: float) -> int:
        """Read back what was recorded before; the number of points. Raise Unavailable as the store does."""
        points = store.read(MEASUREMENT, since_wall_s=wall_s - self._keep_s)
        for point in points:
            self.add(
                point.wall_s,
                inflexible_watts=_number(point, "inflexible_watts"),
                it_wanted_watts=_number(point, "it_wanted_watts"),
            )
        return len(points)

    def add(self, wall_s: float, *, inflexible_watts: float | None, it_wanted_watts: float | None) -> None:
        self._rows.append((wall_s, inflexible_watts, it_wanted_watts))
        while self._rows and self._rows[0][0] < wall_s - self._keep_s:
            self._rows.popleft()

    def inflexible(self) -> list[Sample]:
        return self._samples([(wall_s, watts) for wall_s, watts, _ in self._rows])

    def it_wanted(self) -> list[Sample]:
        """IT load as it would have been if nothing had been held back: what the next day will want again."""
        return self._samples([(wall_s, watts) for wall_s, _, watts in self._rows])

    def _samples(self, readings: Sequence[tuple[float, float | None]]) -> list[Sample]:
        means = slot_averages(readings, slot_s=self._slot_s, max_gap_s=self._max_gap_s)
        return [Sample(mean.start_wall_s, mean.watts) for mean in means if mean.watts is not None]


def _number(point: Point, field: str) -> float | None:
    value = point.fields.get(field)
    return float(value) if isinstance(value, int | float) else None
