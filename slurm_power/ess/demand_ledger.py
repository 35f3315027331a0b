"""What past intervals have set: the peaks of each billing period, for which later months may be billed too.

Frozen; plain numbers, so that it survives a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from slurm_power.ess.rates import ANY_HOUR, DemandComponent, Rates

KEPT_PERIODS = 25
"""No ratchet we know looks back further than two years."""


@dataclass(frozen=True, slots=True)
class SetPeak:
    watts: float
    start_wall_s: float  # of the interval that set it


@dataclass(frozen=True, slots=True)
class DemandLedger:
    """(billing period, component's name or ANY_HOUR) -> the highest closed interval."""

    peaks: Mapping[tuple[int, str], SetPeak] = field(default_factory=dict)

    def with_interval(self, rates: Rates, *, start_wall_s: float, watts: float) -> DemandLedger:
        grid = rates.grid([start_wall_s])
        period = int(grid.period[0])
        names = [c.name for c, hit in zip(rates.demand_components, grid.demand[:, 0], strict=True) if hit]
        raised = {
            (period, name): SetPeak(watts, start_wall_s)
            for name in (ANY_HOUR, *names)
            if watts > self.peak_watts(period, name)
        }
        if not raised:
            return self
        kept = {key: peak for key, peak in self.peaks.items() if key[0] > period - KEPT_PERIODS}
        return DemandLedger({**kept, **raised})

    def peak_watts(self, period: int, name: str = ANY_HOUR) -> float:
        """0 before the first interval."""
        peak = self.peaks.get((period, name))
        return 0.0 if peak is None else peak.watts

    def ratchet_watts(self, rates: Rates, component: DemandComponent, period: int) -> float:
        """What earlier months make this one pay for at least."""
        rule = component.lookback
        if rule is None:
            return 0.0
        before = (p for p in range(period - rule.range_months, period) if rates.month_of_year(p) in rule.months)
        highest = max((self.peak_watts(p) for p in before), default=0.0)
        return max(rule.floor_watts, rule.fraction * highest)

    def billed_watts(self, rates: Rates, component: DemandComponent, period: int) -> float:
        """The incumbent of a planner: only what rises above it costs."""
        own = self.peak_watts(period, component.name)
        return max(own, self.ratchet_watts(rates, component, period))

    def to_records(self) -> list[dict[str, float | int | str]]:
        return [
            {"period": period, "component": name, "watts": peak.watts, "start_wall_s": peak.start_wall_s}
            for (period, name), peak in sorted(self.peaks.items())
        ]

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, float | int | str | bool | None]]) -> DemandLedger:
        """Read back `to_records`. Raise ValueError for anything that is not such a record."""
        peaks = {}
        for record in records:
            try:
                key = (int(str(record["period"])), str(record["component"]))
                peaks[key] = SetPeak(float(str(record["watts"])), float(str(record["start_wall_s"])))
            except (KeyError, ValueError) as cause:
                raise ValueError(f"not a peak: {dict(record)}") from cause
        return cls(peaks)
