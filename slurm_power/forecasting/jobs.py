"""The IT load from what Slurm knows: running jobs until they end, pending ones as they fit, yesterday beyond.

Known limits: a job is taken to draw the same watts until its expected end; jobs not yet submitted are
only in yesterday's part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slurm_power.forecasting.forecast import QUANTILES, SeriesForecast
from slurm_power.forecasting.history import Watts
from slurm_power.forecasting.settings import ForecastConfig

MAX_PENDING = 500
"""Pending jobs beyond this many change nothing that a forecast could know."""


@dataclass(frozen=True, slots=True)
class RunningDraw:
    watts: float  # above idle, as if it were not capped
    end_wall_s: float | None  # None: it runs on


@dataclass(frozen=True, slots=True)
class PendingDraw:
    watts: float  # above idle, once it runs
    duration_s: float | None  # None: it runs on
    begin_wall_s: float | None = None  # user's own earliest start


@dataclass(frozen=True, slots=True)
class ItDraw:
    """The IT load by its parts. `idle_watts` is what all nodes draw without any job."""

    idle_watts: float
    running: tuple[RunningDraw, ...] = ()
    pending: tuple[PendingDraw, ...] = ()


def forecast_it_load(
    draw: ItDraw,
    *,
    usual: SeriesForecast | None,
    it_max_watts: float,
    start_wall_s: float,
    slot_s: float,
    slots: int,
    config: ForecastConfig,
) -> SeriesForecast:
    """The median goes from the queue's profile to the `usual` load (a forecast from IT history, None: there is
    none yet) with time constant queue_trust_s. The band of the queue's part is the stated one, of what is above idle.
    """
    edges: Watts = start_wall_s + slot_s * np.arange(slots + 1, dtype=np.float64)
    committed = np.full(slots, draw.idle_watts, dtype=np.float64)
    for job in draw.running:
        committed = committed + job.watts * _overlap(edges, -math.inf, job.end_wall_s)
    profile = _with_pending(committed, draw.pending, edges, it_max_watts)
    ahead_s = slot_s * np.arange(slots, dtype=np.float64)
    trust = np.exp(-ahead_s / config.queue_trust_s) if usual is not None else np.ones(slots)
    beyond = np.asarray(usual.quantile(0.5), dtype=np.float64) if usual is not None else profile
    median = trust * profile + (1 - trust) * beyond
    above_idle = (profile - draw.idle_watts).clip(min=0.0)
    rows = []
    for q in QUANTILES:
        stated = _STATED_SHAPE[q] * config.stated_band_fraction * above_idle
        usual_spread = np.asarray(usual.quantile(q)) - beyond if usual is not None else stated
        rows.append(median + trust * stated + (1 - trust) * usual_spread)
    watts = np.maximum.accumulate(np.clip(np.array(rows), 0.0, it_max_watts), axis=0)
    return SeriesForecast(
        start_wall_s=start_wall_s,
        slot_s=slot_s,
        watts={q: tuple(row.tolist()) for q, row in zip(QUANTILES, watts, strict=True)},
        model="queue" if usual is None else f"queue, then {usual.model}",
    )


_STATED_SHAPE = {0.1: -1.0, 0.5: 0.0, 0.9: 1.0, 0.95: 1.25}


def _with_pending(committed: Watts, pending: Sequence[PendingDraw], edges: Watts, it_max_watts: float) -> Watts:
    """Each pending job, in order, starts in the first slot in which it fits until it ends."""
    profile = committed.copy()
    slot_s = edges[1] - edges[0]
    for job in pending[:MAX_PENDING]:
        length = profile.size if job.duration_s is None else max(1, math.ceil(job.duration_s / slot_s))
        earliest = 0 if job.begin_wall_s is None else max(0, math.ceil((job.begin_wall_s - edges[0]) / slot_s))
        fits = profile + job.watts <= it_max_watts
        start = _first_run(fits, earliest, length)
        if start is not None:
            end_wall_s = None if job.duration_s is None else edges[start] + job.duration_s
            profile = profile + job.watts * _overlap(edges, edges[start], end_wall_s)
    return profile


def _first_run(fits: NDArray[np.bool_], earliest: int, length: int) -> int | None:
    """First index >= earliest from which `length` slots (or all that are left) fit."""
    run_end = fits.size
    best = None
    for index in range(fits.size - 1, earliest - 1, -1):
        if not fits[index]:
            run_end = index
        elif run_end - index >= length or run_end == fits.size:
            best = index
    return best


def _overlap(edges: Watts, start_wall_s: float, end_wall_s: float | None) -> Watts:
    """The share of each slot between start and end."""
    end = math.inf if end_wall_s is None else end_wall_s
    seconds = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start_wall_s)
    share: Watts = np.clip(seconds / np.diff(edges), 0.0, 1.0)
    return share
