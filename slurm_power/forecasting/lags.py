"""What a learning forecaster looks at: the same time of earlier days, and how the last slots differed from theirs.

Everything is taken before the origin, so that nothing can look ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slurm_power.forecasting.grid import Floats, Index, Series

_RECENT = (1, 2, 3, 4, 6, 8, 12, 24, 48)
_RECENT_WEEK = (1, 2, 4, 8)
_NEEDED_DAYS = 2
_NEEDED_WEEKS = 3


@dataclass(frozen=True, slots=True)
class Lags:
    """Which lags a history is long enough for."""

    weeks: bool
    period: int

    @classmethod
    def for_history(cls, series: Series, slots: int) -> Lags:
        """Weeks are looked at once there are twice as many as a lag of a week needs."""
        return cls(slots >= 2 * _NEEDED_WEEKS * 7 * series.period, series.period)

    @property
    def first_origin(self) -> int:
        """Before it there is not enough history to look back."""
        days = _NEEDED_WEEKS * 7 if self.weeks else _NEEDED_DAYS + 1
        return days * self.period + max(_RECENT) + 2

    def width(self, extras: int) -> int:
        """Columns with so many extra ones."""
        return 4 + len(_RECENT) + (2 + len(_RECENT_WEEK) if self.weeks else 0) + 2 + extras

    def columns(self, series: Series, origins: Index, ahead: int) -> Floats:
        """[origins, features] for slot origin + ahead. Only slots before the origin are read."""
        y, period = series.watts, self.period
        at = origins + ahead
        day = period * (ahead // period + 1)
        found = [y[at - day], y[at - day - period], y[at - day - 1], y[np.minimum(at - day + 1, origins - 1)]]
        last = origins - 1
        found += [y[last - i] - y[last - i - period] for i in (r - 1 for r in _RECENT)]
        if self.weeks:
            week = 7 * period
            back = week * (ahead // week + 1)
            found += [y[at - back], y[at - back - week]]
            found += [y[last - i] - y[last - i - week] for i in (r - 1 for r in _RECENT_WEEK)]
        found += [self._mean(y, origins, period), y[last]]
        found += [series.extras[last, c] for c in range(series.extras.shape[1])]
        return np.stack(found, axis=1)

    @staticmethod
    def _mean(y: Floats, origins: Index, slots: int) -> Floats:
        sums = np.concatenate([[0.0], np.cumsum(y)])
        mean: Floats = (sums[origins] - sums[origins - slots]) / slots
        return mean
