"""Thinning for InfluxDB: `gpu` becomes `gpu_10s`, that becomes `gpu_60s`; InfluxStore reads them as one.

The merged points are written before the samples are deleted, and are the same however often they are written: a crash
in between costs nothing. What is too old altogether the server deletes by its own retention policy.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from slurm_power.adapters.telemetry_influxdb import InfluxStore, thinned_name
from slurm_power.adapters.telemetry_pruned import Pruned, SteadyWall
from slurm_power.monitoring.downsample import THINNED_MEASUREMENTS, merged_fields
from slurm_power.ports.telemetry_store import Point

log = logging.getLogger(__name__)

WINDOW_S = 600.0
"""So much is deleted at once, for the server marks each deletion in every series; a whole number of buckets."""

_WINDOWS_AT_ONCE = 3


class InfluxUpkeep:
    def __init__(
        self,
        store: InfluxStore,
        *,
        thinning: Sequence[tuple[float, float]],
        window_s: float = WINDOW_S,
        wall_s: Callable[[], float] = time.time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._thinning = tuple(thinning)
        self._window_s = window_s
        self._clock = SteadyWall(wall_s, now_s)

    def some(self) -> Pruned:
        """A little more than what comes in meanwhile. Raise Unavailable."""
        return self._up_to(_WINDOWS_AT_ONCE)

    def all(self) -> Pruned:
        return self._up_to(math.inf)

    def _up_to(self, windows: float) -> Pruned:
        now_s, done, count = self._clock.wall_s(), Pruned(), 0
        if now_s is None:
            return done
        for source, target, end_s, bucket_s in self._steps(now_s):
            while count < windows and (begin_s := self._store.oldest_wall_s(source)) is not None:
                begin_s = math.floor(begin_s / self._window_s) * self._window_s
                if begin_s + self._window_s > end_s:
                    break
                done += self._thin(source, target, begin_s, bucket_s)
                count += 1
        return done

    def _steps(self, now_s: float) -> Iterator[tuple[str, str, float, float]]:
        """(from, to, older than, one for so many seconds)"""
        for measurement in THINNED_MEASUREMENTS:
            source = measurement
            for after_s, bucket_s in self._thinning:
                target = thinned_name(measurement, bucket_s)
                yield source, target, now_s - after_s, bucket_s
                source = target

    def _thin(self, source: str, target: str, begin_s: float, bucket_s: float) -> Pruned:
        """One bucket of all series is in memory at once."""
        merged = 0
        for number in range(round(self._window_s / bucket_s)):
            since_s = begin_s + number * bucket_s
            points = self._store.read_alone(source, since_wall_s=since_s, until_wall_s=since_s + bucket_s)
            points.sort(key=_series_then_time)
            series = groupby(points, key=lambda point: tuple(point.tags.items()))
            self._store.write_now([_merged(target, list(some)) for _, some in series])
            merged += len(points)
        self._store.delete(source, since_wall_s=begin_s, until_wall_s=begin_s + self._window_s)
        return Pruned(merged=merged)


def _series_then_time(point: Point) -> tuple[tuple[tuple[str, str], ...], float]:
    return tuple(point.tags.items()), point.wall_s


def _merged(measurement: str, bucket: Sequence[Point]) -> Point:
    last = bucket[-1]
    return Point(measurement, last.wall_s, merged_fields([point.fields for point in bucket]), last.tags)
