"""Clock consistency: how far, and for how long, a loaded GPU's SM clock was from the one expected. Pure.

The expected clock is the lock, where there is one. Without one it is what was seen: the median of the loaded time in
which nothing held the clock back, under the same limit; where that is less than a tenth, of all loaded time under it.
So each limit has its own expectation: a clock that follows a new cap is no jitter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slurm_power.sla.histogram import Seconds, mean_and_deviation, percentile, share
from slurm_power.sla.intervals import Intervals
from slurm_power.sla.thresholds import ClockThresholds
from slurm_power.sla.whose import Cause

MAX_MHZ = 4096
CAP_STEP_WATTS = 25
FREE_ENOUGH_FRACTION = 0.1
MAX_REGIMES = 8

_CAUSES = len(Cause)
_MHZ = np.arange(MAX_MHZ)


@dataclass(frozen=True, slots=True)
class ClockRegime:
    """A time under one lock and one limit (to the next 25 W)."""

    locked_mhz: int | None
    cap_watts: int | None
    expected_mhz: float
    expected_from: str  # "lock" | "seen"
    loaded_s: float
    mean_mhz: float


@dataclass(frozen=True, slots=True)
class OutsideSeconds:
    """Time too far from the expected clock, by what held the clock then."""

    unexplained: float
    infrastructure: float
    operator_cap: float
    user_cap: float
    board_limit: float

    @property
    def judged(self) -> float:
        """What no cap explains. Under its own full limit a board always trades clock for power."""
        return self.unexplained + self.infrastructure


@dataclass(frozen=True, slots=True)
class ClockFigures:
    loaded_s: float
    mean_mhz: float | None
    variation_fraction: float | None  # standard deviation / mean
    min_mhz: float | None
    max_mhz: float | None
    outside_warn_s: OutsideSeconds
    outside_critical_s: OutsideSeconds
    regimes: tuple[ClockRegime, ...]  # the longest first, MAX_REGIMES at most

    @property
    def warn_fraction(self) -> float | None:
        return share(self.outside_warn_s.judged, self.loaded_s)

    @property
    def critical_fraction(self) -> float | None:
        return share(self.outside_critical_s.judged, self.loaded_s)


class ClockTally:
    def __init__(self) -> None:
        self._seconds: dict[int, dict[int, float]] = {}  # by regime: cause and clock -> seconds

    def add(self, intervals: Intervals) -> None:
        clock = intervals.samples["sm_clock_mhz"]
        use = intervals.loaded & (intervals.seconds > 0) & np.isfinite(clock)
        if not use.any():
            return
        mhz = np.clip(np.rint(clock[use]), 0, MAX_MHZ - 1).astype(np.int64)
        regimes, place = np.unique(_regime(intervals)[use], return_inverse=True)
        key = (place * _CAUSES + intervals.cause[use]) * MAX_MHZ + mhz
        keys, place = np.unique(key, return_inverse=True)
        spent = np.bincount(place, weights=intervals.seconds[use])
        for one, seconds in zip(keys.tolist(), spent.tolist(), strict=True):
            number, within = divmod(one, _CAUSES * MAX_MHZ)
            table = self._seconds.setdefault(int(regimes[number]), {})
            table[within] = table.get(within, 0.0) + seconds

    def figures(self, thresholds: ClockThresholds) -> ClockFigures:
        warn, critical = np.zeros(_CAUSES), np.zeros(_CAUSES)
        total, regimes = np.zeros(MAX_MHZ), []
        for code, spent in self._seconds.items():
            table = np.zeros(_CAUSES * MAX_MHZ)
            table[list(spent)] = list(spent.values())
            by_cause = table.reshape(_CAUSES, MAX_MHZ)
            regime = _described(code, by_cause)
            away = np.abs(_MHZ - regime.expected_mhz)
            warn += by_cause[:, away > thresholds.warn_mhz].sum(axis=1)
            critical += by_cause[:, away > thresholds.critical_mhz].sum(axis=1)
            total += by_cause.sum(axis=0)
            regimes.append(regime)
        mean, deviation = mean_and_deviation(_MHZ, total)
        seen = np.flatnonzero(total)
        return ClockFigures(
            loaded_s=float(total.sum()),
            mean_mhz=mean,
            variation_fraction=None if deviation is None or not mean else deviation / mean,
            min_mhz=float(seen[0]) if seen.size else None,
            max_mhz=float(seen[-1]) if seen.size else None,
            outside_warn_s=_outside(warn),
            outside_critical_s=_outside(critical),
            regimes=tuple(sorted(regimes, key=lambda one: -one.loaded_s)[:MAX_REGIMES]),
        )


def _regime(intervals: Intervals) -> NDArray[np.int64]:
    """Lock and limit as one number; 0 stands for "none"."""
    lock = np.nan_to_num(intervals.samples["locked_clock_mhz"]).astype(np.int64)
    steps = np.rint(np.nan_to_num(intervals.samples["cap_watts"]) / CAP_STEP_WATTS).astype(np.int64)
    return lock << 32 | steps


def _described(code: int, by_cause: NDArray[np.float64]) -> ClockRegime:
    lock, steps = code >> 32, code & 0xFFFFFFFF
    all_of_it, free = by_cause.sum(axis=0), by_cause[Cause.FREE]
    loaded_s = float(all_of_it.sum())
    enough = float(free.sum()) >= FREE_ENOUGH_FRACTION * loaded_s
    seen = percentile(_MHZ, free if enough else all_of_it, 0.5)
    mean, _ = mean_and_deviation(_MHZ, all_of_it)
    assert seen is not None
    assert mean is not None
    return ClockRegime(
        locked_mhz=lock or None,
        cap_watts=steps * CAP_STEP_WATTS or None,
        expected_mhz=float(lock or seen),
        expected_from="lock" if lock else "seen",
        loaded_s=loaded_s,
        mean_mhz=mean,
    )


def _outside(by_cause: Seconds) -> OutsideSeconds:
    return OutsideSeconds(
        unexplained=float(by_cause[Cause.FREE]),
        infrastructure=float(by_cause[Cause.SITE] + by_cause[Cause.FAULT]),
        operator_cap=float(by_cause[Cause.OPERATOR]),
        user_cap=float(by_cause[Cause.USER]),
        board_limit=float(by_cause[Cause.BOARD]),
    )
