"""The rolling forecast as time goes on: the same path that backtests judge, made anew once a slot.

Learning takes seconds to minutes and has its own thread; whoever asks in the meantime gets the last forecast, moved on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, tzinfo

import numpy as np

from slurm_power.forecasting.boosted import BoostedModel
from slurm_power.forecasting.forecast import QUANTILES, Forecaster, Sample, SeriesForecast
from slurm_power.forecasting.grid import DAY_S, Floats, Series, even_series
from slurm_power.forecasting.memory import LearnedMemory, epoch_slot
from slurm_power.forecasting.rolling import QUANTILES as ROLLED_QUANTILES
from slurm_power.forecasting.rolling import Rolled, RollingConfig, roll

ERROR_DAYS = 30
"""So many past days' errors are handed to the planner."""

LEAST_DAYS = 9
"""Of history, before anything can be forecast."""

MAX_AGE_SLOTS = 4
"""An older forecast is not moved on."""


class LearningForecaster:
    """For one series. Until there is enough to learn from, and whenever learning fell behind, `otherwise` answers."""

    def __init__(
        self,
        otherwise: Forecaster,
        *,
        slot_s: float,
        slots: int,
        period_s: float = DAY_S,
        zone: tzinfo = UTC,
        config: RollingConfig = RollingConfig(),  # noqa: B008 - frozen
    ) -> None:
        self._otherwise, self._config = otherwise, config
        self._slot_s, self._slots, self._period_s, self._zone = slot_s, slots, period_s, zone
        self._memory = LearnedMemory(slots, ROLLED_QUANTILES, threads=config.threads)
        self._latest: SeriesForecast | None = None

    def forecast(self, history: Sequence[Sample], *, start_wall_s: float, slots: int) -> SeriesForecast:
        latest = self._latest
        behind = None if latest is None else round((start_wall_s - latest.start_wall_s) / self._slot_s)
        if latest is not None and behind == 0 and slots == self._slots:
            return latest  # the usual tick: the naive forecast of a long history is not made in vain
        otherwise = self._otherwise.forecast(history, start_wall_s=start_wall_s, slots=slots)
        if latest is None or behind is None or slots != self._slots or not 0 < behind <= min(MAX_AGE_SLOTS, slots - 1):
            return otherwise
        return _moved_on(latest, otherwise, behind)

    def learn(self, history: Sequence[Sample], *, start_wall_s: float, extras: Floats | None = None) -> bool:
        """Make the forecast from `start_wall_s`, learning anew if it is time; False: too little history yet.

        `extras` [samples, columns]: what else was known at the end of each sample's slot.
        """
        known = [sample for sample in history if sample.start_wall_s < start_wall_s]
        if not known:
            return False
        series = self._series(known, start_wall_s, None if extras is None else extras[: len(known)])
        origin, period = series.watts.size, series.period
        if origin <= LEAST_DAYS * period:
            return False
        first = max(origin - ERROR_DAYS * period, LEAST_DAYS * period)
        rolled = roll(series, first=first, last=origin + 1, slots=self._slots, config=self._config, memory=self._memory)
        self._latest = rolled_forecast(series, rolled, rolled.origins.size - 1)
        window = (ERROR_DAYS + 1 + self._config.calibration_days) * period + self._slots
        self._memory.forget_before(epoch_slot(series) + origin - round(window))
        return True

    def newest_model(self) -> tuple[BoostedModel, int, int] | None:
        return self._memory.newest()

    def adopt(self, model: BoostedModel, *, start: int, until: int) -> bool:
        return self._memory.adopt(model, start=start, until=until)

    def _series(self, known: Sequence[Sample], start_wall_s: float, extras: Floats | None) -> Series:
        starts = np.array([sample.start_wall_s for sample in known])
        watts = np.array([sample.watts for sample in known])
        last_s = start_wall_s - self._slot_s
        if starts[-1] < last_s - 0.5 * self._slot_s:  # the slot just over is unknown: filled in, and marked so
            starts, watts = np.append(starts, last_s), np.append(watts, watts[-1])
            extras = None if extras is None else np.vstack([extras, extras[-1:]])
            series = even_series(
                starts, watts, slot_s=self._slot_s, extras=extras, period_s=self._period_s, zone=self._zone
            )
            unknown = series.known.copy()
            unknown[-1] = False
            return replace(series, known=unknown)
        return even_series(starts, watts, slot_s=self._slot_s, extras=extras, period_s=self._period_s, zone=self._zone)


def rolled_forecast(series: Series, rolled: Rolled, row: int) -> SeriesForecast:
    """What was forecast from the origin of `row`, with the errors of the same hour's days before, known by then."""
    quantiles = rolled.quantiles
    past = row - series.period * np.arange(1, ERROR_DAYS + 1)
    past = past[past >= 0]
    paths = rolled.truth[past] - rolled.watts[past, quantiles.index(0.5)]
    return SeriesForecast(
        float(series.start_wall_s + int(rolled.origins[row]) * series.slot_s),
        series.slot_s,
        {q: rolled.watts[row, quantiles.index(q)].tolist() for q in QUANTILES},
        "learned" if rolled.learned[row] else "seasonal naive, calibrated",
        paths[~np.isnan(paths).any(axis=1)].tolist(),
    )


def _moved_on(latest: SeriesForecast, otherwise: SeriesForecast, slots: int) -> SeriesForecast:
    """Without the slots that are over; the new ones at the end are the other forecaster's."""
    watts = {q: [*list(latest.watts[q])[slots:], *list(otherwise.watts[q])[-slots:]] for q in QUANTILES}
    errors = [[*list(path)[slots:], *[path[-1]] * slots] for path in latest.errors]
    return SeriesForecast(otherwise.start_wall_s, latest.slot_s, watts, latest.model, errors)
