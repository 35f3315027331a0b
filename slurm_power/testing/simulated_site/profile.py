"""The building's inflexible load over compressed days. Pure: no clock, no file.

A profile's time is in real seconds from its origin; one day of the source lasts `day_s` of them, so the day before
the origin (what a forecaster may know already) is simply negative time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt

from slurm_power.errors import ConfigError, require
from slurm_power.monitoring.load_table import WATTS_PER_UNIT, read_power_table

SECONDS_PER_DAY = 86_400.0  # of the source; a compressed day has its own length
GENERATED_DAYS = 8
GENERATED_SAMPLES_PER_DAY = 96

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """The `[load]` table. Without `csv_file` the days are generated from `seed`."""

    day_s: float
    """Real seconds one day of the source lasts."""

    mean_watts: float
    """Mean of the day at the origin after scaling."""

    peak_watts: float
    """Highest sample of the day at the origin after scaling."""

    csv_file: str | None = None
    """A table of time and power with a header line."""

    unit: str | None = None
    """Unit of its power column (W, kW, MW, GW); None reads it from the column's name. Scaling hides a wrong one."""

    day: str | int = 1
    """Day of the file at the origin: an ISO date, or a number counted from the first whole day (0)."""

    start_fraction: float = 0.0
    """Where in that day the origin lies: 0 is midnight, 0.5 is noon."""

    seed: int = 1
    """Of the generated days and their noise."""

    def __post_init__(self) -> None:
        require(self.day_s > 0, "day_s", self.day_s, "must be above 0")
        require(self.mean_watts > 0, "mean_watts", self.mean_watts, "must be above 0")
        require(self.peak_watts > self.mean_watts, "peak_watts", self.peak_watts, "must be above mean_watts")
        require(0 <= self.start_fraction < 1, "start_fraction", self.start_fraction, "must be in [0, 1)")
        known = self.unit is None or self.unit.lower() in WATTS_PER_UNIT
        require(known, "unit", self.unit, "must be one of W, kW, MW, GW")


@dataclass(frozen=True, slots=True)
class LoadProfile:
    """Power over time, linear between samples, flat beyond the first and last one."""

    times_s: Floats
    watts: Floats
    day_s: float

    def watts_at(self, time_s: float) -> float:
        return float(np.interp(time_s, self.times_s, self.watts))

    def samples(self, *, since_s: float, until_s: float, step_s: float) -> list[tuple[float, float]]:
        """(time_s, watts) every `step_s` in [since_s, until_s); negative times lie before the origin."""
        count = max(0, math.ceil((until_s - since_s) / step_s - 1e-9))
        times = [since_s + step_s * i for i in range(count)]
        return [(t, self.watts_at(t)) for t in times]


def load_profile(config: LoadConfig, csv_lines: Iterable[str] | None = None) -> LoadProfile:
    """The profile `config` describes; `csv_lines` are the lines of its `csv_file`, read by the caller.
    Raise ConfigError for a table without a time and a power column, or without the wanted day."""
    if csv_lines is None:
        seconds, watts = generated_days(seed=config.seed)
        origin_day_s = (GENERATED_DAYS - 1) * SECONDS_PER_DAY
    else:
        seconds, watts = read_power_table(csv_lines, unit=config.unit)
        origin_day_s = _day_start_s(config.day, seconds)
    in_day = (seconds >= origin_day_s) & (seconds < origin_day_s + SECONDS_PER_DAY)
    require(int(in_day.sum()) >= 2, "day", config.day, "the table has fewer than two samples on that day")
    scaled = _scale(watts, watts[in_day], mean_watts=config.mean_watts, peak_watts=config.peak_watts)
    origin_s = origin_day_s + config.start_fraction * SECONDS_PER_DAY
    return LoadProfile((seconds - origin_s) * (config.day_s / SECONDS_PER_DAY), scaled, config.day_s)


def _scale(watts: Floats, day: Floats, *, mean_watts: float, peak_watts: float) -> Floats:
    """Shift and stretch so that `day` gets the wanted mean and peak; a deep trough stops at 0."""
    spread = float(day.max() - day.mean())
    stretch = (peak_watts - mean_watts) / spread if spread > 0 else 0.0
    scaled: Floats = np.maximum(0.0, mean_watts + (watts - day.mean()) * stretch)
    return scaled


def generated_days(*, seed: int) -> tuple[Floats, Floats]:
    """Days alike but not equal: a plateau from morning on, a peak in the late afternoon, a shoulder in the evening."""
    rng = random.Random(seed)
    seconds: list[float] = []
    shape: list[float] = []
    noise = 0.0
    for day in range(GENERATED_DAYS):
        height, hour_of_peak = rng.uniform(0.95, 1.05), rng.gauss(17.0, 0.25)
        for sample in range(GENERATED_SAMPLES_PER_DAY):
            hour = 24.0 * sample / GENERATED_SAMPLES_PER_DAY
            noise = 0.8 * noise + rng.gauss(0.0, 0.012)
            seconds.append((day + sample / GENERATED_SAMPLES_PER_DAY) * SECONDS_PER_DAY)
            shape.append(0.45 + height * _day_shape(hour, hour_of_peak) + noise)
    return np.array(seconds), np.array(shape)


def _day_shape(hour: float, hour_of_peak: float) -> float:
    def bump(centre: float, width: float) -> float:
        return math.exp(-(((hour - centre) / width) ** 2))

    return 0.22 * bump(11.0, 3.5) + 0.5 * bump(hour_of_peak, 2.2) + 0.18 * bump(20.5, 2.0)


def _day_start_s(day: str | int, seconds: Floats) -> float:
    if isinstance(day, str):
        try:
            chosen = date.fromisoformat(day)
        except ValueError:
            raise ConfigError(f"day = {day}: must be an ISO date or a number of days") from None
        return datetime(chosen.year, chosen.month, chosen.day, tzinfo=UTC).timestamp()
    first = math.ceil(float(seconds[0]) / SECONDS_PER_DAY) * SECONDS_PER_DAY
    return first + day * SECONDS_PER_DAY
