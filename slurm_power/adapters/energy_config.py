"""The [energy] table: how energy is given to jobs, and what it costs the climate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slurm_power.errors import ConfigError, require
from slurm_power.monitoring.carbon import CarbonIntensity, read_intensity, steady


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyConfig:
    node_remainder: Literal["share", "apart"] = "share"
    """What a node draws beside its GPUs: each of its n GPUs carries one nth, or it is reported apart from all jobs."""

    intensity_file: Path | None = None
    """CSV: time, grams of CO2 equivalent per kWh; each row holds until the next. Not given: no carbon is reported."""

    intensity_grams_per_kwh: float | None = None
    """One value for any time, instead of a file."""

    def __post_init__(self) -> None:
        grams = self.intensity_grams_per_kwh
        require(grams is None or grams >= 0, "intensity_grams_per_kwh", grams, "must be zero or more")
        require(
            grams is None or self.intensity_file is None,
            "intensity_grams_per_kwh",
            grams,
            "must not be given beside intensity_file",
        )

    def intensity(self) -> CarbonIntensity | None:
        """Raise ConfigError for a file that cannot be read."""
        if self.intensity_grams_per_kwh is not None:
            return steady(self.intensity_grams_per_kwh)
        if self.intensity_file is None:
            return None
        try:
            with self.intensity_file.open(encoding="utf-8", newline="") as lines:
                return read_intensity(lines, name=str(self.intensity_file))
        except (OSError, UnicodeDecodeError) as cause:
            raise ConfigError(f"intensity_file = {self.intensity_file}: cannot be read: {cause}") from cause
