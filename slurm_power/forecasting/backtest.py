"""A forecaster judged on the past: day-ahead forecasts made each midnight, beside seasonal naive ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from slurm_power.forecasting.grid import Series
from slurm_power.forecasting.rolling import QUANTILES, Progress, RollingConfig, naive_rolled, roll, truth_of
from slurm_power.forecasting.scores import Scores, score


@dataclass(frozen=True, slots=True)
class Backtest:
    slots_per_day: int
    days: int
    learned_fraction: float
    """Of the days: the learned model was used, not a naive one."""

    scores: dict[str, Scores]
    """`ours`, `naive 1 day`, `naive 7 days`."""

    @property
    def pinball_ratio_to_naive(self) -> float:
        """Ours over the better naive one."""
        best = min(found.pinball_watts for name, found in self.scores.items() if name != "ours")
        return self.scores["ours"].pinball_watts / best


class LookedAhead(Exception):
    """A forecast changed when only its future was changed."""


def backtest(
    series: Series,
    *,
    days: int,
    config: RollingConfig = RollingConfig(),  # noqa: B008 - frozen
    progress: Progress = lambda share: None,
) -> Backtest:
    """Over the last `days` whole days. Raise LookedAhead if the forecasts know what they cannot know, ValueError for a
    series that is too short."""
    period = series.period
    midnight = round(-series.start_wall_s / series.slot_s) % period
    last = (series.watts.size - midnight) // period * period + midnight
    first = last - days * period
    if first < (8 + config.calibration_days) * period:
        raise ValueError(f"{series.watts.size / period:.0f} days are too few to test {days} of them")
    rolled = roll(series, first=first, last=last, slots=period, config=config, progress=progress)
    _refuse_look_ahead(series, last=last, config=config)
    at_midnight = slice(0, None, period)
    origins = rolled.origins[at_midnight]
    truth = truth_of(series, origins, period)
    every = np.arange(first - round(config.calibration_days * period) - period, last, dtype=np.int64)
    found = {"ours": score(rolled.watts[at_midnight], truth, QUANTILES, slot_s=series.slot_s)}
    for back in (1, 7):
        naive = naive_rolled(
            series, every, slots=period, days_back=back, quantiles=QUANTILES, window_days=config.calibration_days
        )
        kept = naive[every >= first][at_midnight]
        found[f"naive {back} day{'s' if back > 1 else ''}"] = score(kept, truth, QUANTILES, slot_s=series.slot_s)
    return Backtest(period, days, float(rolled.learned[at_midnight].mean()), found)


def _refuse_look_ahead(series: Series, *, last: int, config: RollingConfig) -> None:
    """Plant another future behind the last origin: what is forecast there must not change."""
    origin = last - series.period
    planted = series.watts.copy()
    planted[origin:] = planted[origin:][::-1] * 3.0 + 1.0
    first, second = (
        roll(each, first=origin, last=origin + 1, slots=series.period, config=config).watts
        for each in (series, replace(series, watts=planted))
    )
    if not np.allclose(first, second):
        raise LookedAhead("a forecast changed when only its future was changed: it is not usable")
