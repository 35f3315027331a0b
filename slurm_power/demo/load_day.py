"""Which day of a load file the demo replays, and what the building drew the day before."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from slurm_power.demo.settings import DemoSettings
from slurm_power.errors import ConfigError
from slurm_power.monitoring.load_table import read_power_table
from slurm_power.testing.simulated_site.profile import (
    SECONDS_PER_DAY,
    LoadConfig,
    LoadProfile,
    load_profile,
)


def choose_day(lines: Iterable[str]) -> int:
    """Number (from the first whole day) of the day with the highest peak among those with a whole day before."""
    seconds, watts = read_power_table(lines, unit=None)
    first_s = np.ceil(seconds[0] / SECONDS_PER_DAY) * SECONDS_PER_DAY
    days = np.floor((seconds - first_s) / SECONDS_PER_DAY).astype(int)
    counts = {int(day): int((days == day).sum()) for day in np.unique(days[days >= 0])}
    usual = max(counts.values(), default=0)
    whole = [day for day, count in counts.items() if count == usual and counts.get(day - 1) == usual]
    if not whole:
        raise ConfigError("the load file needs two whole days in a row")
    return max(whole, key=lambda day: float(watts[days == day].max()))


def profile_of(settings: DemoSettings, *, day: str | int, lines: Iterable[str] | None) -> LoadProfile:
    """The same profile that the simulated site replays."""
    config = LoadConfig(
        day_s=settings.day_s,
        mean_watts=settings.building_mean_watts,
        peak_watts=settings.building_peak_watts,
        csv_file=None if settings.load_file is None else str(settings.load_file),
        day=day,
        seed=settings.seed,
    )
    return load_profile(config, lines)
