"""Carbon intensity of the grid over time, from a table. Pure."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from slurm_power.errors import ConfigError

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CarbonIntensity:
    """Each row holds until the next; the last one as long as the one before it. Outside nothing is known."""

    starts_wall_s: Numbers
    grams_per_joule: Numbers
    end_wall_s: float

    def mean(self, begin_wall_s: Numbers, end_wall_s: Numbers) -> Numbers:
        """Grams per joule of steady draw over each time; NaN where it is not known for all of it."""
        edges = np.append(self.starts_wall_s, self.end_wall_s)
        sums = np.concatenate([[0.0], np.cumsum(np.diff(edges) * self.grams_per_joule)])
        grams = np.interp(end_wall_s, edges, sums) - np.interp(begin_wall_s, edges, sums)
        lengths = end_wall_s - begin_wall_s
        known = (begin_wall_s >= edges[0]) & (end_wall_s <= edges[-1]) & (lengths > 0)
        found: Numbers = np.where(known, grams / np.where(known, lengths, 1.0), np.nan)
        return found


def steady(grams_per_kwh: float) -> CarbonIntensity:
    """The same at any time."""
    return CarbonIntensity(np.array([0.0]), np.array([grams_per_kwh / 3.6e6]), 1e11)


def read_intensity(lines: Iterable[str], *, name: str) -> CarbonIntensity:
    """CSV with a header: first a column of time (ISO 8601, UTC where it names no zone, or seconds since the epoch),
    then one of grams of CO2 equivalent per kWh. Raise ConfigError naming the line."""
    rows: list[tuple[float, float]] = []
    for number, row in enumerate(csv.reader(lines), start=1):
        if number == 1 or not row:
            continue
        try:
            at_s, grams = _wall_s(row[0]), float(row[1])
        except (IndexError, ValueError) as cause:
            raise ConfigError(f"{name}: line {number}: must be a time and a number of g/kWh: {cause}") from cause
        if not (math.isfinite(grams) and grams >= 0):
            raise ConfigError(f"{name}: line {number}: {row[1]}: must be zero or more")
        if rows and at_s <= rows[-1][0]:
            raise ConfigError(f"{name}: line {number}: times must rise")
        rows.append((at_s, grams / 3.6e6))
    if len(rows) < 2:
        raise ConfigError(f"{name}: needs two rows at least: how long one holds is not known otherwise")
    starts, values = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    return CarbonIntensity(starts, values, float(2 * starts[-1] - starts[-2]))


def _wall_s(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
