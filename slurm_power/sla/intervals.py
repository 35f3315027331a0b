"""The time between two readings, and what is known of it: what holds at the first one holds until the second, unless
they are too far apart. Gaps are kept, never filled. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slurm_power.sla.board import BoardFacts, Window
from slurm_power.sla.samples import Samples, joined
from slurm_power.sla.thresholds import DataThresholds
from slurm_power.sla.whose import IDLE, causes, whose_cap

Seconds = NDArray[np.float64]
Mask = NDArray[np.bool_]

COARSEST_S = 60.0
"""Readings that are regularly this far apart, and no further, still follow each other: a store thins old points."""

USUAL_TIMES = 2.5
MAX_LISTED_GAPS = 100

COUNTERS = ("power_violation_s", "thermal_violation_s")


@dataclass(frozen=True, slots=True)
class Intervals:
    """Each begins at a reading."""

    samples: Samples
    seconds: Seconds  # 0: a gap follows
    loaded: Mask
    whose: NDArray[np.int8]
    cause: NDArray[np.int8]
    first: Mask  # nothing is known of the moment before: what is seen here begins here
    gained: Mapping[str, Seconds]  # by how much each of COUNTERS rose


@dataclass(slots=True)
class Gaps:
    count: int = 0
    seconds: float = 0.0
    listed: list[tuple[float, float]] = field(default_factory=list)
    """The first MAX_LISTED_GAPS of them: begin and end."""

    def add(self, begin_s: float, end_s: float) -> None:
        self.count += 1
        self.seconds += end_s - begin_s
        if len(self.listed) < MAX_LISTED_GAPS:
            self.listed.append((begin_s, end_s))


class Stitcher:
    """Readings come in chunks; intervals reach from chunk to chunk."""

    def __init__(self, thresholds: DataThresholds, board: BoardFacts) -> None:
        self._thresholds = thresholds
        self._board = board
        self._window: Window | None = None
        self._last: Samples | None = None
        self._known_before = False
        self._limit_s = thresholds.gap_s
        self.gaps = Gaps()
        self.samples = 0
        self.interval_s: float | None = None

    def open(self, window: Window) -> None:
        self._window, self._last, self._known_before = window, None, False

    def feed(self, chunk: Samples) -> Intervals | None:
        """`chunk` comes after all that came before in this window. None while there is only one reading."""
        assert self._window is not None
        if not len(chunk):
            return None
        self.samples += len(chunk)
        parts = [chunk] if self._last is None else [self._last, chunk]
        whole = joined(parts)
        steps_s = np.diff(whole.wall_s())
        if steps_s.size:
            usual_s = self.interval_s = float(np.median(steps_s))
            self._limit_s = max(self._thresholds.gap_s, USUAL_TIMES * usual_s if usual_s <= COARSEST_S else 0.0)
        if self._last is None:
            self._note_gap(self._window.begin_wall_s, float(whole.wall_s()[0]))
        self._last = whole.where(np.arange(len(whole)) == len(whole) - 1)
        return self._intervals(whole, steps_s) if steps_s.size else None

    def close(self) -> None:
        assert self._window is not None
        begin_s = self._window.begin_wall_s if self._last is None else float(self._last.wall_s()[0])
        self._note_gap(begin_s, self._window.end_wall_s, always=self._last is None)
        self._window = None

    def _note_gap(self, begin_s: float, end_s: float, *, always: bool = False) -> None:
        if end_s - begin_s > (0.0 if always else self._limit_s):
            self.gaps.add(begin_s, end_s)

    def _intervals(self, whole: Samples, steps_s: Seconds) -> Intervals:
        begins = whole.where(np.arange(len(whole)) < len(whole) - 1)
        known = steps_s <= self._limit_s
        times = whole.wall_s()
        for at in np.flatnonzero(~known).tolist():
            self.gaps.add(float(times[at]), float(times[at + 1]))
        first = np.concatenate([[not self._known_before], ~known[:-1]])
        self._known_before = bool(known[-1])
        whose = whose_cap(begins, tdp_watts=self._board.tdp_watts)
        busy = _busy(whole, self._thresholds.loaded_fraction)
        return Intervals(
            samples=begins,
            seconds=np.where(known, steps_s, 0.0),
            loaded=busy[:-1] & busy[1:],
            whose=whose,
            cause=causes(begins, whose),
            first=first,
            gained={name: np.diff(whole[name]) for name in COUNTERS},
        )


def _busy(samples: Samples, loaded_fraction: float) -> Mask:
    """By utilisation; where the board does not tell it, by whether it calls itself idle."""
    utilisation, reasons = samples["utilisation_fraction"], samples["throttle_reasons"]
    told = np.isfinite(utilisation)
    awake = (reasons >= 0) & ((reasons & IDLE) == 0)
    return np.where(told, utilisation >= loaded_fraction, awake)
