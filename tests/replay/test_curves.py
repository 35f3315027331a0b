"""Throughput and draw under a cap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.relocation.throughput import lowest_cap_watts, throughput_fraction
from slurm_power.replay.curves import Curve, assumed_curve, read_curves

HEADER = "Workload,GPU power cap,throughput,total GPU power,normalized throughput,power per GPU"
ROWS = [HEADER, "a,200,1,1,0.7,190", "a,400,1,1,1.0,350", "a,300,1,1,0.65,300", "b,100,1,1,0.4,99", "b,400,1,1,0.8,390"]

CONFIG = RelocationConfig(
    license_total_watts=10_000, gpu_max_watts=700.0, gpu_idle_watts=70.0, min_gpu_cap_watts=200.0, node_base_watts=500.0
)


def test_curves_are_read_by_workload_and_never_fall():
    curves = read_curves(ROWS)
    assert curves["a"] == Curve((200, 300, 400), (0.7, 0.7, 1.0), (190, 300, 350))
    assert curves["b"].throughput_fractions == (0.5, 1.0)  # of its own highest


def test_between_measured_caps_values_are_interpolated_and_below_them_nothing_is_assumed():
    curve = read_curves(ROWS)["b"]
    assert curve.throughput_fraction(250.0) == pytest.approx(0.75)
    assert curve.drawn_watts(np.array([100.0, 50.0, 500.0])).tolist() == [99, 99, 390]


def test_the_lowest_cap_keeps_the_slowdown_within_its_bound():
    curve = read_curves(ROWS)["b"]
    assert curve.lowest_cap_watts(0.25) == pytest.approx(250)
    assert curve.lowest_cap_watts(0.0) == 400
    assert curve.lowest_cap_watts(0.9) == 100
    assert read_curves(ROWS)["a"].lowest_cap_watts(0.3) == 200


def test_curves_can_be_put_on_boards_of_another_size():
    curve = read_curves(ROWS)["a"].for_boards_of(800.0)
    assert curve.cap_watts == (400, 600, 800)
    assert curve.uncapped_draw_watts == 700


@given(st.floats(200.0, 700.0), st.floats(0.0, 0.5))
def test_the_assumed_curve_says_what_relocation_plans_with(cap_watts, slowdown):
    curve = assumed_curve(CONFIG)
    assert curve.throughput_fraction(cap_watts) == pytest.approx(throughput_fraction(cap_watts / 700.0, CONFIG))
    least = lowest_cap_watts(700.0, max_slowdown_fraction=slowdown, config=CONFIG)
    assert max(CONFIG.min_gpu_cap_watts, curve.lowest_cap_watts(slowdown)) == pytest.approx(least)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(["a,b", "1,2"], "no column Workload", id="other-columns"),
        pytest.param([HEADER], "no rows", id="empty"),
        pytest.param([HEADER, "a,200,1,1,x,190"], "line 2", id="no-number"),
        pytest.param([HEADER, "a,200,1,1,0.7,190"], "two points", id="one-point"),
    ],
)
def test_a_file_that_holds_no_curves_is_refused(rows, message):
    with pytest.raises(ConfigError, match=message):
        read_curves(rows)
