"""Where points in time fall in a zone's calendar, for whole arrays at once. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, tzinfo

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

_OFFSET_STEP_S = 900
"""No zone has changed its offset between two quarters of an hour since 1980."""

_FOUR_DAYS = 4
"""1970-01-01 was a Thursday: day 4 of a week that starts on Sunday."""


@dataclass(frozen=True, slots=True)
class LocalTimes:
    """Calendar positions, one entry per point in time."""

    day: Whole  # days since 1970-01-01, local
    month: Whole  # months since January 1970, local
    hour: Whole  # 0..23, local
    rest_day: Truths  # Saturday, Sunday or a holiday

    @property
    def month_of_year(self) -> Whole:
        """0 is January."""
        return self.month % 12


def local_times(wall_s: npt.ArrayLike, *, zone: tzinfo, holidays: frozenset[date] = frozenset()) -> LocalTimes:
    seconds = np.atleast_1d(np.asarray(wall_s, dtype=np.float64))
    local_s = np.floor(seconds + _offsets_s(seconds, zone)).astype(np.int64)
    day = local_s // 86_400
    month = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    weekday = (day + _FOUR_DAYS) % 7
    rest_day = (weekday == 0) | (weekday == 6)
    if holidays:
        rest_day |= np.isin(day, [(holiday - date(1970, 1, 1)).days for holiday in holidays])
    return LocalTimes(day, month, (local_s % 86_400) // 3600, rest_day)


def month_start_wall_s(month: int, *, zone: tzinfo) -> float:
    """When the month (counted from January 1970) begins in the zone."""
    return datetime(1970 + month // 12, month % 12 + 1, 1, tzinfo=zone).timestamp()


def _offsets_s(seconds: Numbers, zone: tzinfo) -> Numbers:
    """Seconds east of Greenwich; the zone is asked once per day, and per step only on days that change it."""
    days, where = np.unique(np.floor_divide(seconds, 86_400).astype(np.int64), return_inverse=True)
    edges = {int(day): _offset_s(int(day) * 86_400, zone) for day in {*days.tolist(), *(days + 1).tolist()}}
    offsets = np.array([edges[int(day)] for day in days], dtype=np.float64)[where]
    for position in np.flatnonzero([edges[int(day)] != edges[int(day) + 1] for day in days]):
        at = np.flatnonzero(where == position)
        steps, which = np.unique(np.floor_divide(seconds[at], _OFFSET_STEP_S).astype(np.int64), return_inverse=True)
        offsets[at] = np.array([_offset_s(int(step) * _OFFSET_STEP_S, zone) for step in steps])[which]
    return offsets


def _offset_s(wall_s: int, zone: tzinfo) -> float:
    offset = datetime.fromtimestamp(wall_s, zone).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()
