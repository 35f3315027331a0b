"""The incumbent: the peak that this billing period has already set. Only what rises above it costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from slurm_power.ess.tariff import Tariff
from slurm_power.monitoring.metering import ClosedInterval


@dataclass(frozen=True, slots=True)
class IncumbentPeak:
    period_start_wall_s: float
    peak_watts: float = 0.0
    unknown_s: float = 0.0  # of closed intervals of this period; the true peak may hide there


def incumbent_after(
    peak: IncumbentPeak | None, closed: Iterable[ClosedInterval], *, tariff: Tariff, wall_s: float
) -> IncumbentPeak:
    """The incumbent at `wall_s`. A new billing period starts from zero; older intervals do not count."""
    period = tariff.billing_period_start(wall_s)
    kept = peak if peak is not None and peak.period_start_wall_s == period else IncumbentPeak(period)
    peak_watts, unknown_s = kept.peak_watts, kept.unknown_s
    for interval in closed:
        if tariff.billing_period_start(interval.start_wall_s) != period:
            continue
        peak_watts = max(peak_watts, interval.average_watts or 0.0)
        unknown_s += interval.unknown_s
    return IncumbentPeak(period, peak_watts, unknown_s)
