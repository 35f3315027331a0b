"""The recorded loads that peak shaving is judged on, and the site each of them stands for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.rates import Rates
from slurm_power.ess.urdb import parse_urdb
from slurm_power.forecasting.grid import Series, even_series
from slurm_power.forecasting.rolling import Rolled, RollingConfig
from slurm_power.monitoring.load_table import read_load_table
from slurm_power.replay.learned import rolled_forecasts
from slurm_power.replay.site_load import SiteLoad

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
E19, ENTERGY = "PGE_E19_secondary_2019.json", "Entergy_AR_LPS_TOU_2018.json"
AC_TO_AC = 0.8986
HOURS = 2.0

ACTIVE_NODE_WATTS, IDLE_NODE_WATTS, PUE = 1844.0, 704.0, 1.3
"""The model that makes watts of Philly's and Helios's counts: eight GPUs at a stated utilisation, and cooling."""

GPUS_PER_NODE = 8


LONG = RollingConfig()
SHORT = replace(LONG, refit_days=7.0)
"""For records of weeks."""

SHORTEST = replace(SHORT, calibration_days=8.0)
"""For records of three weeks."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A load and the part of it that is judged; what is before is history."""

    series: Series
    first: int

    @property
    def judged(self) -> Series:
        return self.series.between(self.first, self.series.watts.size)


def wpd() -> Recorded:
    """A substation, 30 min; judged: 2019."""
    with (DATA / "load/wpd_substation_30min.csv").open(encoding="utf-8") as lines:
        table = read_load_table(lines)
    series = even_series(table.wall_s, table.watts, slot_s=1800.0)
    return Recorded(series, round((datetime(2019, 1, 1, tzinfo=UTC).timestamp() - series.start_wall_s) / 1800.0))


def pjm_east(years: float = 4.0) -> Series:
    """A grid zone, hourly: the last years."""
    with (DATA / "load/pjm_east_hourly.csv").open(encoding="utf-8") as lines:
        table = read_load_table(lines, unit="MW")
    series = even_series(table.wall_s, table.watts, slot_s=3600.0)
    return series.between(max(0, series.watts.size - round(years * 8760)), series.watts.size)


def philly() -> Recorded:
    """A GPU cluster of 2017, 15 min; judged: all but the first nine days."""
    rows = _rows("load/philly_nodes_1min.csv")
    active, total = _column(rows, "active"), _column(rows, "total")
    watts = PUE * (ACTIVE_NODE_WATTS * active + IDLE_NODE_WATTS * (total - active))
    series = even_series(_times(rows, "time"), watts, slot_s=900.0)
    return Recorded(series, 9 * series.period)


def helios(*, queue: bool) -> Series:
    """A GPU cluster of 2020, 15 min; `queue`: with what its scheduler knew beside."""
    rows = _rows("load/helios_earth_queue_1min.csv")
    names = list(rows[0])
    running, idle = _column(rows, "running_gpu_num"), _column(rows, "idle_gpu_num")
    watts = PUE * (ACTIVE_NODE_WATTS * running + IDLE_NODE_WATTS * idle) / GPUS_PER_NODE
    state = [name for name in names if "pending" in name or name == "running_job_num"]
    extras = np.stack([_column(rows, name) for name in state], axis=1) if queue else None
    return even_series(_times(rows, names[0]), watts, slot_s=900.0, extras=extras)


def rates(name: str) -> Rates:
    return parse_urdb(json.loads((DATA / "tariffs" / name).read_text(encoding="utf-8")), zone=UTC)


def site(recorded: Recorded, tariff: str, *, power_fraction: float) -> SiteLoad:
    """With a battery of `power_fraction` of the judged peak, half full when it begins."""
    judged = recorded.judged
    battery = battery_of(power_fraction * float(judged.watts.max()))
    return SiteLoad.of(judged, rates=rates(tariff), battery=battery)


def battery_of(watts: float) -> BatteryLimits:
    return BatteryLimits.sized(watts, hours=HOURS, ac_to_ac_efficiency=AC_TO_AC)


def forecasts(recorded: Recorded, config: RollingConfig, *, progress: Callable[[float], None]) -> Rolled:
    return rolled_forecasts(recorded.series, recorded.first, config, progress)


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _column(rows: Sequence[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def _times(rows: Sequence[dict[str, str]], name: str) -> np.ndarray:
    return np.array([datetime.fromisoformat(row[name]).replace(tzinfo=UTC).timestamp() for row in rows])
