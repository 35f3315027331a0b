"""Power against TDP: what a GPU drew of what it may; a busy one that draws little, with what else was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slurm_power.sla.board import BoardFacts
from slurm_power.sla.histogram import Seconds, share
from slurm_power.sla.intervals import Intervals, Mask
from slurm_power.sla.thresholds import PowerThresholds


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """Time in which the GPU called itself busy but drew little of the limit in force; means of that time."""

    seconds: float
    draw_fraction: float | None  # of the limit in force
    utilisation_fraction: float | None
    sm_clock_mhz: float | None


@dataclass(frozen=True, slots=True)
class PowerFigures:
    known_s: float
    loaded_s: float
    tdp_watts: float | None
    max_watts: float | None
    mean_watts: float | None  # of the loaded time
    max_fraction: float | None  # of TDP
    mean_fraction: float | None
    mean_limit_watts: float | None  # in force in the loaded time
    utilisation_fraction: float | None  # mean of all known time
    over_limit_s: float
    sampled_joules: float  # draw times known time: not the counter's
    bottleneck: Bottleneck

    @property
    def bottleneck_fraction(self) -> float | None:
        return share(self.bottleneck.seconds, self.loaded_s)

    @property
    def over_limit_fraction(self) -> float | None:
        return share(self.over_limit_s, self.known_s)

    @property
    def unused_fraction(self) -> float | None:
        return None if self.known_s <= 0 else 1.0 - self.loaded_s / self.known_s


class _Mean:
    """Of a value over those seconds in which it is known."""

    def __init__(self) -> None:
        self._sum = self._seconds = 0.0

    def add(self, values: Seconds, seconds: Seconds, use: Mask) -> None:
        use = use & np.isfinite(values)
        self._sum += float((values[use] * seconds[use]).sum())
        self._seconds += float(seconds[use].sum())

    def value(self) -> float | None:
        return share(self._sum, self._seconds)

    def total(self) -> float:
        return self._sum


class PowerTally:
    def __init__(self, board: BoardFacts, thresholds: PowerThresholds) -> None:
        self._tdp_watts = board.tdp_watts
        self._thresholds = thresholds
        self._known_s = self._loaded_s = self._over_s = self._low_s = 0.0
        self._max: float | None = None
        self._joules, self._loaded_draw, self._loaded_limit, self._used = _Mean(), _Mean(), _Mean(), _Mean()
        self._low_draw, self._low_used, self._low_clock = _Mean(), _Mean(), _Mean()

    def add(self, intervals: Intervals) -> None:
        samples, seconds, rules = intervals.samples, intervals.seconds, self._thresholds
        draw = samples["draw_watts"].astype(np.float64)
        used = samples["utilisation_fraction"].astype(np.float64)
        limit = samples["cap_watts"].astype(np.float64)
        if self._tdp_watts is not None:
            limit = np.fmin(limit, self._tdp_watts)
        told = np.isfinite(draw) & (seconds > 0)
        loaded = told & intervals.loaded
        self._known_s += float(seconds[told].sum())
        self._loaded_s += float(seconds[loaded].sum())
        if told.any():
            highest = float(draw[told].max())
            self._max = highest if self._max is None else max(self._max, highest)
        self._joules.add(draw, seconds, told)
        self._loaded_draw.add(draw, seconds, loaded)
        self._loaded_limit.add(limit, seconds, loaded)
        self._used.add(used, seconds, told)
        self._over_s += float(seconds[told & (draw > limit * (1 + rules.over_limit_fraction))].sum())
        low = loaded & (used >= rules.busy_fraction) & (draw < limit * rules.low_draw_fraction)
        self._low_s += float(seconds[low].sum())
        self._low_draw.add(draw / limit, seconds, low)
        self._low_used.add(used, seconds, low)
        self._low_clock.add(samples["sm_clock_mhz"].astype(np.float64), seconds, low)

    def figures(self) -> PowerFigures:
        tdp, mean = self._tdp_watts, self._loaded_draw.value()
        return PowerFigures(
            known_s=self._known_s,
            loaded_s=self._loaded_s,
            tdp_watts=tdp,
            max_watts=self._max,
            mean_watts=mean,
            max_fraction=None if self._max is None or not tdp else self._max / tdp,
            mean_fraction=None if mean is None or not tdp else mean / tdp,
            mean_limit_watts=self._loaded_limit.value(),
            utilisation_fraction=self._used.value(),
            over_limit_s=self._over_s,
            sampled_joules=self._joules.total(),
            bottleneck=Bottleneck(self._low_s, self._low_draw.value(), self._low_used.value(), self._low_clock.value()),
        )
