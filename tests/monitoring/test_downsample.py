"""What several samples become when they are thinned to one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.monitoring.downsample import merged_fields


def test_levels_become_means_counters_and_texts_stay_the_last_and_heat_its_highest() -> None:
    rows = [
        {
            "draw_watts": 100.0,
            "energy_joules": 1e3,
            "temperature_celsius": 70.0,
            "throttle_reasons": 4.0,
            "who": "user",
        },
        {"draw_watts": 300.0, "energy_joules": 2e3, "temperature_celsius": 60.0, "throttle_reasons": 32.0, "who": "us"},
    ]
    assert merged_fields(rows) == {
        "draw_watts": 200.0,
        "energy_joules": 2e3,
        "temperature_celsius": 70.0,
        "throttle_reasons": 36.0,
        "who": "us",
        "samples": 2.0,
    }


def test_an_unknown_value_is_no_zero() -> None:
    merged = merged_fields([{"draw_watts": 100.0}, {"sm_clock_mhz": 1500.0}])
    assert merged == {"draw_watts": 100.0, "sm_clock_mhz": 1500.0, "samples": 2.0}


@given(st.lists(st.floats(0, 700), min_size=2, max_size=60), st.data())
def test_thinning_twice_is_thinning_once(watts: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(watts) - 1))
    rows = [{"draw_watts": one, "energy_joules": 10.0 * index} for index, one in enumerate(watts)]
    once = merged_fields(rows)
    twice = merged_fields([merged_fields(rows[:cut]), merged_fields(rows[cut:])])
    assert twice["draw_watts"] == pytest.approx(once["draw_watts"])
    assert {**twice, "draw_watts": 0} == {**once, "draw_watts": 0}
