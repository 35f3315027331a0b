from __future__ import annotations

import numpy as np
import pytest

from slurm_power.errors import ConfigError
from slurm_power.monitoring.load_table import read_power_table
from slurm_power.testing.simulated_site.profile import LoadConfig, load_profile

HALF_HOURS = ["datetime,demand_MW"] + [
    f"2018-01-{day:02}T{hour:02}:{minute:02}:00,{2.0 + (hour == 18) * day:.2f}"
    for day in range(1, 6)
    for hour in range(24)
    for minute in (0, 30)
]


def config(**changes: object) -> LoadConfig:
    return LoadConfig(**{"day_s": 120.0, "mean_watts": 9000.0, "peak_watts": 14_000.0, **changes})  # type: ignore[arg-type]


def test_the_day_at_the_origin_has_the_wanted_mean_and_peak() -> None:
    profile = load_profile(config(day="2018-01-03"), HALF_HOURS)
    day = [watts for _, watts in profile.samples(since_s=0.0, until_s=120.0, step_s=2.5)]
    assert max(day) == pytest.approx(14_000.0)
    assert np.mean(day) == pytest.approx(9000.0)


def test_the_day_before_the_origin_is_negative_time() -> None:
    profile = load_profile(config(day="2018-01-03"), HALF_HOURS)
    yesterday = [watts for _, watts in profile.samples(since_s=-120.0, until_s=0.0, step_s=2.5)]
    assert 9000.0 < max(yesterday) < 14_000.0


def test_a_day_may_be_named_by_number() -> None:
    by_date, by_number = load_profile(config(day="2018-01-03"), HALF_HOURS), load_profile(config(day=2), HALF_HOURS)
    assert by_date.watts_at(90.0) == by_number.watts_at(90.0)


def test_power_is_linear_between_samples() -> None:
    profile = load_profile(config(day="2018-01-03"), HALF_HOURS)
    before, between, after = (profile.watts_at(s) for s in (87.5, 88.75, 90.0))
    assert before < after
    assert between == pytest.approx((before + after) / 2)


def test_the_origin_may_lie_inside_the_day() -> None:
    midnight = load_profile(config(day="2018-01-03"), HALF_HOURS)
    noon = load_profile(config(day="2018-01-03", start_fraction=0.5), HALF_HOURS)
    assert noon.watts_at(30.0) == pytest.approx(midnight.watts_at(90.0))


def test_beyond_the_table_the_last_sample_holds() -> None:
    profile = load_profile(config(day="2018-01-03"), HALF_HOURS)
    assert profile.watts_at(1e6) == profile.watts_at(2e6) > 0


@pytest.mark.parametrize(
    ("unit", "column", "watts"),
    [("kW", "power", 2000.0), (None, "site_kW", 2000.0), (None, "Load (MW)", 2e6), ("W", "demand_MW", 2.0)],
)
def test_the_unit_is_told_or_read_from_the_column(unit: str | None, column: str, watts: float) -> None:
    _, power = read_power_table([f"t,{column}", "0,2.0", "60,2.0"], unit=unit)
    assert power[0] == watts


def test_time_and_power_are_found_among_other_columns_and_put_in_order() -> None:
    lines = ["place,kW,when", "hall,3,2020-01-02", "hall,1,2020-01-01", "hall,9,2020-01-01", "hall,,2020-01-03"]
    seconds, watts = read_power_table(lines, unit=None)
    assert list(np.diff(seconds)) == [86_400.0]
    assert list(watts) == [1000.0, 3000.0]  # the doubled time keeps its first value, the gap is left out


def test_a_table_without_power_is_refused() -> None:
    with pytest.raises(ConfigError, match="load file"):
        read_power_table(["when,what", "2020-01-01,a", "2020-01-02,b"], unit=None)


@pytest.mark.parametrize("day", ["2031-01-01", 400, "someday"])
def test_a_day_the_table_does_not_hold_is_refused(day: str | int) -> None:
    with pytest.raises(ConfigError, match="day"):
        load_profile(config(day=day), HALF_HOURS)


def test_a_generated_day_peaks_in_the_afternoon_and_follows_its_seed() -> None:
    one, same, other = (load_profile(config(seed=seed)) for seed in (1, 1, 2))
    day = one.samples(since_s=0.0, until_s=120.0, step_s=1.0)
    peak_at_s = max(day, key=lambda sample: sample[1])[0]
    assert 14 / 24 < peak_at_s / 120.0 < 21 / 24
    assert np.array_equal(one.watts, same.watts)
    assert not np.array_equal(one.watts, other.watts)


def test_generated_days_are_alike_but_not_equal() -> None:
    profile = load_profile(config())
    today, yesterday = (
        np.array([watts for _, watts in profile.samples(since_s=start_s, until_s=start_s + 120.0, step_s=1.25)])
        for start_s in (0.0, -120.0)
    )
    assert np.corrcoef(today, yesterday)[0, 1] > 0.9
    assert not np.allclose(today, yesterday)
