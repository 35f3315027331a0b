"""What the site drew in the past, slot by slot, for the forecaster: kept in memory, refilled from the store."""

from __future__ import annotations

from slurm_power.forecasting.forecast import Sample
from slurm_power.monitoring.slot_averages import SlotAverages
from slurm_power.ports.telemetry_store import Point, TelemetryStore

MEASUREMENT = "site"


class SiteHistory:
    def __init__(self, *, keep_s: float, slot_s: float, max_gap_s: float) -> None:
        self._keep_s = keep_s
        self._inflexible = SlotAverages(slot_s=slot_s, max_gap_s=max_gap_s)
        self._it_wanted = SlotAverages(slot_s=slot_s, max_gap_s=max_gap_s)

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
        for averages, watts in ((self._inflexible, inflexible_watts), (self._it_wanted, it_wanted_watts)):
            averages.add(wall_s, watts)
            averages.forget_before(wall_s - self._keep_s)

    def inflexible(self) -> list[Sample]:
        return _samples(self._inflexible)

    def it_wanted(self) -> list[Sample]:
        """IT load as it would have been if nothing had been held back: what the next day will want again."""
        return _samples(self._it_wanted)


def _samples(averages: SlotAverages) -> list[Sample]:
    return [Sample(mean.start_wall_s, mean.watts) for mean in averages.slots() if mean.watts is not None]


def _number(point: Point, field: str) -> float | None:
    value = point.fields.get(field)
    return float(value) if isinstance(value, int | float) else None
