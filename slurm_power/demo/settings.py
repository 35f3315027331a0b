"""The demo's site: four nodes of four GPUs, a building, a battery, and a day that lasts minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slurm_power.errors import require

DAYS_PER_MONTH = 30
SECONDS_PER_DAY = 86_400.0
DEFAULT_SEED = 3
DEFAULT_DAY_S = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    directory: Path
    seed: int = DEFAULT_SEED
    day_s: float = DEFAULT_DAY_S
    slots_per_day: int = 30
    """Planning slots, and metering intervals, of one day."""

    load_file: Path | None = None
    """Inflexible load: any CSV of time and power. None: a generated building."""

    load_day: str | int | None = None
    """Day of the file; None: the day with the highest peak that has a day before it."""

    store: Literal["sqlite", "influxdb"] = "sqlite"
    window_fraction: float = 1.2
    """Both runs are measured and billed for so many days: the day itself and the night into which work moved."""

    drain_s: float = 60.0
    """How long after that the last jobs may still run; a job that has not ended then is lost."""

    nodes: int = 4
    gpus_per_node: int = 4
    node_base_watts: int = 500
    gpu_max_watts: float = 700.0
    gpu_idle_watts: float = 70.0
    gpu_safe_cap_watts: float = 400.0
    pue: float = 1.25
    building_mean_watts: float = 8_000.0
    building_peak_watts: float = 12_000.0
    battery_watts: float = 4_000.0
    battery_hours: float = 2.0
    """Of the compressed day, at full power."""

    energy_price_per_kwh: float = 0.12
    energy_peak_price_per_kwh: float = 0.18
    demand_price_per_kw: float = 20.0
    """For the month whose peak this day sets."""

    shed_price_per_kwh: float = 0.1
    delay_price_per_kwh_hour: float = 0.3
    """Of IT work that is done later than it could be, for each hour it waits."""

    it_quantile: float = 0.9
    """Of the IT forecast that the plan must survive."""

    def __post_init__(self) -> None:
        require(self.day_s >= 60, "day_s", self.day_s, "must be at least 60: Slurm needs seconds to start jobs")
        require(self.slots_per_day >= 12, "slots_per_day", self.slots_per_day, "must be at least 12")
        slot_s = self.day_s / self.slots_per_day
        require(slot_s == int(slot_s), "day_s", self.day_s, "must be a whole number of seconds per slot")

    @property
    def slot_s(self) -> float:
        return self.day_s / self.slots_per_day

    @property
    def window_s(self) -> float:
        return self.window_fraction * self.day_s

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def it_max_watts(self) -> float:
        return self.nodes * self.node_base_watts + self.gpus * self.gpu_max_watts

    @property
    def battery_joules(self) -> float:
        return self.battery_watts * self.battery_hours / 24.0 * self.day_s

    @property
    def compression(self) -> float:
        """Seconds of the day that pass in one real second."""
        return SECONDS_PER_DAY / self.day_s
