from __future__ import annotations

import numpy as np
import pytest

from slurm_power.errors import ConfigError
from slurm_power.monitoring.carbon import read_intensity, steady

HOURLY = ["time,g_per_kwh", "2026-11-29T00:00,100", "2026-11-29T01:00Z,400", "1795917600,200"]
MIDNIGHT_S = 1795910400.0


def grams_per_kwh(begin_s: float, end_s: float) -> float:
    mean = read_intensity(HOURLY, name="co2.csv").mean(np.array([MIDNIGHT_S + begin_s]), np.array([MIDNIGHT_S + end_s]))
    return float(mean[0]) * 3.6e6


def test_each_row_holds_until_the_next_and_the_last_as_long_as_the_one_before() -> None:
    assert grams_per_kwh(0, 3600) == pytest.approx(100)
    assert grams_per_kwh(1800, 5400) == pytest.approx(250)
    assert grams_per_kwh(7200, 10_800) == pytest.approx(200)


def test_outside_the_table_nothing_is_known() -> None:
    assert np.isnan(grams_per_kwh(-60, 60))
    assert np.isnan(grams_per_kwh(10_000, 10_900))


def test_a_steady_intensity_holds_at_any_time() -> None:
    mean = steady(380.0).mean(np.array([0.0, 1.8e9]), np.array([1.0, 1.8e9 + 86_400]))
    assert mean * 3.6e6 == pytest.approx([380.0, 380.0])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["time,g", "2026-11-29,100"], "needs two rows"),
        (["time,g", "2026-11-29,100", "2026-11-28,100"], "line 3: times must rise"),
        (["time,g", "2026-11-29,-1", "2026-11-30,1"], "line 2: -1: must be zero or more"),
        (["time,g", "2026-11-29,many"], "line 2: must be a time and a number"),
        (["time,g", "yesterday,1"], "line 2: must be a time and a number"),
        (["time,g", "2026-11-29"], "line 2: must be a time and a number"),
    ],
)
def test_a_bad_line_is_named(lines: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_intensity(lines, name="co2.csv")
