"""Profiles: the power model's numbers, what is worth choosing from, Zeus' CSV and when a sweep ends."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import ConfigError
from training.planning.clock_profiles import ClockProfile, OperatingPoint, frontier, read_profile, sweep_is_over
from training.planning.frequency_program import convex_hull
from training.planning.instructions import BACKWARD, FORWARD, Compute
from training.planning.power_model import EMULATED, emulated_profile
from training.planning.replay import uniform

ZEUS = """stage,instruction,frequency,time,energy
0,forward,1980,0.10,60.0
0,forward,1500,0.12,50.0
0,backward,1980,0.20,130.0
"""


def test_the_emulated_board_draws_its_limit_at_the_highest_clock_and_idles_at_seventy_watts() -> None:
    assert EMULATED.draw_watts(1.0, 1980) == pytest.approx(700.0)
    assert EMULATED.draw_watts(0.0, 1980) == 70.0


def test_below_the_knee_power_falls_with_the_clock_alone() -> None:
    """0.5 of the clock: 70 + 630 x 0.5 x 0.7^2."""
    assert EMULATED.draw_watts(1.0, 990) == pytest.approx(70 + 630 * 0.5 * 0.49)
    assert EMULATED.speed(990) == pytest.approx(0.5**0.8)


def test_the_models_numbers_are_those_of_the_emulated_board() -> None:
    """So that what is planned here is what the board then does."""
    header = _emulator_source("emulator.h")
    for text in ("EMU_IDLE_WATTS 70.0", "EMU_PEAK_WATTS 700.0", "EMU_MIN_CLOCK_MHZ 345u", "EMU_MAX_CLOCK_MHZ 1980u"):
        assert text in header
    assert "EMU_CLOCK_STEP_MHZ 15u" in header
    physics = _emulator_source("physics.c")
    for text in ("VOLTAGE_FLOOR 0.70", "VOLTAGE_KNEE 0.55", "WORK_EXPONENT 0.8"):
        assert text in physics


def _emulator_source(name: str) -> str:
    return (Path(__file__).parents[2] / "slurm_power/testing/nvml_emulator" / name).read_text()


def test_settable_clocks_go_down_in_steps() -> None:
    clocks = EMULATED.clocks_mhz()
    assert clocks[:2] == (1980, 1965)
    assert clocks[-1] == 345
    assert len(EMULATED.clocks_mhz(every=2)) == 55


def test_a_profile_scales_times_by_speed_and_energy_by_power() -> None:
    profile = emulated_profile(uniform(2, forward_s=1.0, backward_s=2.0), clocks_mhz=(1980, 990))
    slow = profile.at(Compute(BACKWARD, 1, 0), 990)
    assert slow.time_s == pytest.approx(2 / 0.5**0.8)
    assert slow.energy_joules == pytest.approx(slow.time_s * EMULATED.draw_watts(1.0, 990))
    assert profile.waiting_watts == 70.0


def test_a_point_that_is_slower_and_needs_more_is_dropped() -> None:
    points = [OperatingPoint(1.0, 100.0, 3), OperatingPoint(1.2, 110.0, 2), OperatingPoint(1.5, 90.0, 1)]
    assert [point.clock_mhz for point in frontier(points, 0.0)] == [3, 1]


def test_waiting_is_taken_off_before_points_are_compared() -> None:
    """Slower by 0.2 s and dearer by 10 J, but 0.2 s of waiting at 60 W would have cost 12 J."""
    points = [OperatingPoint(1.0, 100.0, 2), OperatingPoint(1.2, 110.0, 1)]
    assert [point.clock_mhz for point in frontier(points, 60.0)] == [2, 1]


def test_a_point_above_the_line_between_its_neighbours_is_not_on_the_hull() -> None:
    points = [OperatingPoint(1.0, 100.0, 3), OperatingPoint(2.0, 95.0, 2), OperatingPoint(3.0, 50.0, 1)]
    assert [point.clock_mhz for point in convex_hull(points, 0.0)] == [3, 1]
    below = [OperatingPoint(1.0, 100.0, 3), OperatingPoint(2.0, 60.0, 2), OperatingPoint(3.0, 50.0, 1)]
    assert [point.clock_mhz for point in convex_hull(below, 0.0)] == [3, 2, 1]


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 99)), min_size=1, max_size=12))
def test_a_hull_starts_fastest_ends_cheapest_and_flattens(pairs) -> None:
    points = [OperatingPoint(time_s, joules, number) for number, (time_s, joules) in enumerate(pairs)]
    hull = convex_hull(points, 0.0)
    assert hull[0] == min(points)
    assert hull[-1].energy_joules == min(joules for _, joules in pairs)
    slopes = [(slow.energy_joules - fast.energy_joules) / (slow.time_s - fast.time_s) for fast, slow in pairwise(hull)]
    assert all(slope < 0 for slope in slopes)
    assert all(later >= earlier * (1 + 1e-9) for earlier, later in pairwise(slopes))


def test_a_sweep_ends_after_five_rises_in_a_row() -> None:
    falling = [100.0, 90.0, 80.0]
    assert not sweep_is_over(falling)
    assert not sweep_is_over([*falling, 81, 82, 83, 84])
    assert sweep_is_over([*falling, 81, 82, 83, 84, 85])
    assert not sweep_is_over([*falling, 81, 82, 79, 84, 85])


def test_zeus_csv_is_read() -> None:
    profile = read_profile(ZEUS.splitlines(), waiting_watts=80.0)
    assert profile.fastest(Compute(FORWARD, 0, 0)) == OperatingPoint(0.10, 60.0, 1980)
    assert profile.points[0, BACKWARD] == (OperatingPoint(0.20, 130.0, 1980),)


def test_noise_does_not_make_a_lower_clock_the_faster_one() -> None:
    lines = ["stage,instruction,frequency,time,energy", "0,forward,1980,0.10,60", "0,forward,1965,0.09,58"]
    points = read_profile(lines, waiting_watts=0.0).points[0, FORWARD]
    assert [point.time_s for point in points] == [0.10, 0.10]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(["stage,time"], "clock profile, line 1 = stage,time: must be stage,", id="columns"),
        pytest.param([ZEUS.splitlines()[0], "0,sideways,1,1,1"], "clock profile, line 2: ", id="direction"),
        pytest.param([ZEUS.splitlines()[0], "0,forward,1,fast,1"], "clock profile, line 2: ", id="number"),
        pytest.param([ZEUS.splitlines()[0], "0,forward,1,0,1"], "must be positive", id="no-time"),
        pytest.param(
            [ZEUS.splitlines()[0], "0,forward,1,1,1", "0,forward,1,2,1"],
            "twice the same clock: must differ",
            id="twice",
        ),
    ],
)
def test_an_unreadable_profile_is_refused_in_one_line(lines, message) -> None:
    with pytest.raises(ConfigError, match=message):
        read_profile(lines, waiting_watts=0.0)


def test_the_highest_clock_must_be_the_fastest() -> None:
    points = {(0, FORWARD): (OperatingPoint(1.0, 1.0, 1000), OperatingPoint(2.0, 1.0, 2000))}
    with pytest.raises(ConfigError, match="= 2000: the highest clock must be the fastest"):
        ClockProfile(points=points, waiting_watts=0.0)
