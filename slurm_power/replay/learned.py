"""The product's rolling forecasts of a recorded load, as the planner gets them slot by slot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from slurm_power.forecasting.forecast import SeriesForecast
from slurm_power.forecasting.grid import Series
from slurm_power.forecasting.live import ERROR_DAYS, LEAST_DAYS, rolled_forecast
from slurm_power.forecasting.rolling import Rolled, RollingConfig, roll
from slurm_power.replay.site_load import Forecast


def rolled_forecasts(
    series: Series, first: int, config: RollingConfig, progress: Callable[[float], None] = lambda share: None
) -> Rolled:
    """From every slot on from `first`, and for the days before it whose errors the planner looks at."""
    begin = max(first - ERROR_DAYS * series.period, LEAST_DAYS * series.period)
    last = series.watts.size
    return roll(series, first=begin, last=last, slots=series.period, config=config, progress=progress)


def learned_forecast(series: Series, rolled: Rolled, first: int) -> Forecast:
    """What was forecast at each slot after `first`, with the errors of the days before, which were known by then."""
    row_of_first = int(np.searchsorted(rolled.origins, first))

    def forecast(slot: int) -> SeriesForecast:
        return rolled_forecast(series, rolled, row_of_first + slot)

    return forecast
