"""Worked numbers for each quadrant. The readings are made up, a second apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.sla.board import BoardFacts, Window
from slurm_power.sla.gpu_tally import GpuFigures
from slurm_power.sla.thresholds import QualityThresholds
from slurm_power.sla.verdict import Quadrant, Verdict, judge, worst
from tests.sla.made_up import BEGIN_S, BOARD, busy, capped, figures, hot, idle, jittering, starved

C, T, H, P = Quadrant
PASS, WARN, FAIL, UNKNOWN = Verdict


def verdicts(gpu: GpuFigures) -> list[Verdict]:
    return list(judge(gpu, QualityThresholds()).values())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param(busy, [PASS, PASS, PASS, PASS], id="clean"),
        pytest.param(capped, [PASS, PASS, PASS, PASS], id="capped-by-the-operator"),
        pytest.param(lambda s: capped(s, source="safe"), [PASS, PASS, PASS, PASS], id="safe-cap"),
        pytest.param(lambda s: capped(s, source="user"), [PASS, PASS, PASS, PASS], id="capped-by-the-user"),
        pytest.param(lambda s: capped(s, source="found"), [PASS, FAIL, PASS, PASS], id="a-limit-nobody-asked-for"),
        pytest.param(hot, [PASS, FAIL, FAIL, PASS], id="overheating"),
        pytest.param(jittering, [FAIL, PASS, PASS, PASS], id="clock-jitter"),
        pytest.param(starved, [PASS, PASS, PASS, WARN], id="starved"),
        pytest.param(idle, [UNKNOWN, PASS, PASS, WARN], id="idle"),
    ],
)
def test_each_fate_shows_in_its_own_quadrant(kind, expected) -> None:  # type: ignore[no-untyped-def]
    assert verdicts(figures(kind(second) for second in range(601))) == expected


def test_chunks_do_not_matter() -> None:
    moments = [jittering(second) if second % 50 < 25 else capped(second) for second in range(1000)]
    whole, cut = figures(moments), figures(moments, chunk=7)
    for part in ("clock", "throttling", "thermal"):
        assert getattr(whole, part) == getattr(cut, part)
    assert whole.power.sampled_joules == pytest.approx(cut.power.sampled_joules)
    assert whole.data.samples_sha256 == cut.data.samples_sha256


# Clock


def test_mean_and_variation_of_the_clock_are_weighted_by_time() -> None:
    moments = [busy(0, sm_clock_mhz=1000), busy(1, sm_clock_mhz=1600), busy(4, sm_clock_mhz=1600)]
    clock = figures(moments).clock
    assert clock.loaded_s == 4
    assert clock.mean_mhz == pytest.approx((1000 + 3 * 1600) / 4)
    assert clock.variation_fraction == pytest.approx(259.8076 / 1450, rel=1e-4)
    assert (clock.min_mhz, clock.max_mhz) == (1000, 1600)


def test_time_outside_counts_beyond_30_and_75_mhz_of_the_median_seen() -> None:
    away = {10: 1950.0, 11: 1949.0, 12: 2055.0, 13: 1904.0, 14: 2056.0}
    clock = figures(busy(s, sm_clock_mhz=away.get(s, 1980.0)) for s in range(101)).clock
    assert clock.regimes[0].expected_mhz == 1980
    assert clock.regimes[0].expected_from == "seen"
    assert clock.outside_warn_s.unexplained == 4
    assert clock.outside_critical_s.unexplained == 2
    assert clock.warn_fraction == pytest.approx(0.04)


def test_a_lock_is_what_is_expected_even_if_the_clock_never_follows_it() -> None:
    clock = figures(busy(s, sm_clock_mhz=1300.0, locked_clock_mhz=1400.0) for s in range(101)).clock
    assert (clock.regimes[0].locked_mhz, clock.regimes[0].expected_mhz) == (1400, 1400)
    assert clock.critical_fraction == 1.0


def test_a_clock_that_follows_a_new_cap_is_no_jitter() -> None:
    moments = [busy(s) if s < 100 else capped(s) for s in range(181)]
    clock = figures(moments).clock
    assert [regime.expected_mhz for regime in clock.regimes] == [1980, 1410]
    assert clock.warn_fraction == 0


@pytest.mark.parametrize(("source", "field"), [("lease", "operator_cap"), ("user", "user_cap")])
def test_a_clock_that_wanders_under_a_cap_is_the_caps_doing(source: str, field: str) -> None:
    moments = [capped(s, source=source, watts=400.0) for s in range(101)]
    moments[50:60] = [replace(one, sm_clock_mhz=1200.0) for one in moments[50:60]]
    clock = figures(moments).clock
    assert getattr(clock.outside_critical_s, field) == 10
    assert clock.critical_fraction == 0


def test_a_ramp_from_idle_is_not_under_load() -> None:
    moments = [idle(s) if s < 10 else busy(s) for s in range(100)]
    assert figures(moments).clock.min_mhz == 1980


# Throttling


def test_reasons_are_counted_in_seconds_and_in_episodes() -> None:
    on = {5, 6, 7, 20, 21}
    moments = [busy(s, throttle_reasons=0x48 if s in on else 0) for s in range(61)]
    throttling = figures(moments).throttling
    for reason in ("hw_slowdown", "hw_thermal"):
        assert (throttling.reasons[reason].seconds, throttling.reasons[reason].episodes) == (5, 2)
    assert throttling.infrastructure_s == 5  # of two reasons at once, the time counts once
    assert throttling.reasons["power_brake"].episodes == 0


def test_a_reason_on_both_sides_of_a_gap_is_two_episodes() -> None:
    moments = [busy(s, throttle_reasons=0x20) for s in (*range(10), *range(100, 110))]
    held = figures(moments).throttling.reasons["sw_thermal"]
    assert (held.seconds, held.episodes) == (18, 2)


def test_heat_under_a_cap_of_ours_is_still_the_infrastructures_fault() -> None:
    throttling = figures(capped(s, throttle_reasons=0x24) for s in range(61)).throttling
    assert throttling.infrastructure_s == 60
    assert throttling.policy_s("operator") == 60


def test_the_boards_own_full_limit_is_nobodys_fault() -> None:
    gpu = figures(capped(s, watts=700.0, source="found") for s in range(601))
    assert gpu.throttling.power_cap_of["board"].seconds == 600
    assert gpu.throttling.infrastructure_s == 0


def test_the_boards_counters_are_summed_over_resets_and_not_over_gaps() -> None:
    counts = [100.0, 100.5, 101.0, 0.2, 0.7]
    moments = [busy(s, thermal_violation_s=count) for s, count in enumerate(counts)]
    moments += [busy(100 + s, thermal_violation_s=50.0 + s) for s in range(3)]
    assert figures(moments).throttling.thermal_counter_s == pytest.approx(0.5 + 0.5 + 0.5 + 2.0)


def test_a_board_that_tells_no_reasons_is_not_judged() -> None:
    gpu = figures(busy(s, throttle_reasons=None) for s in range(601))
    assert judge(gpu, QualityThresholds())[T] is UNKNOWN


# Heat


def test_headroom_is_the_boards_margin_weighted_by_time() -> None:
    margins = [4.0] * 10 + [20.0] * 90 + [20.0]
    thermal = figures(busy(s, thermal_margin_celsius=margin) for s, margin in enumerate(margins)).thermal
    assert thermal.source == "margin"
    assert (thermal.min_celsius, thermal.p5_celsius) == (4, 4)
    assert thermal.mean_celsius == pytest.approx(18.4)
    assert thermal.low_s == 10
    assert thermal.low_fraction == pytest.approx(0.1)


def test_without_a_margin_the_slowdown_temperature_stands_in() -> None:
    moments = [busy(s, thermal_margin_celsius=None, temperature_celsius=70.0) for s in range(61)]
    thermal = figures(moments).thermal
    assert (thermal.source, thermal.min_celsius, thermal.hottest_celsius) == ("slowdown", 20, 70)
    nothing = figures(moments, board=replace(BOARD, slowdown_celsius=None))
    assert judge(nothing, QualityThresholds())[H] is UNKNOWN


# Power


def test_power_is_held_against_the_limit_as_delivered() -> None:
    power = figures([busy(0, draw_watts=350), busy(1, draw_watts=700), busy(2, draw_watts=350)]).power
    assert (power.max_fraction, power.mean_fraction) == (1.0, 0.75)
    assert power.sampled_joules == 1050


def test_a_low_draw_under_a_low_cap_is_no_bottleneck() -> None:
    power = figures(capped(s, watts=250.0) for s in range(61)).power
    assert power.mean_fraction == pytest.approx(248 / 700)
    assert power.bottleneck.seconds == 0


def test_a_bottleneck_tells_what_else_was_seen() -> None:
    low = figures(starved(s) for s in range(61)).power.bottleneck
    assert low.seconds == 60
    assert low.draw_fraction == pytest.approx(150 / 700)
    assert (low.utilisation_fraction, low.sm_clock_mhz) == (1.0, 1980.0)


def test_a_draw_above_the_limit_in_force_is_told() -> None:
    gpu = figures(capped(s, watts=400.0, draw_watts=500.0) for s in range(601))
    assert gpu.power.over_limit_fraction == 1.0
    assert judge(gpu, QualityThresholds())[P] is FAIL


# What is not known


def test_gaps_are_kept_and_nothing_is_filled_into_them() -> None:
    moments = [busy(s) for s in (*range(100), *range(200, 301))]
    gpu = figures(moments, window=Window(BEGIN_S - 50, BEGIN_S + 400))
    assert gpu.data.gaps.count == 3
    assert gpu.data.gaps.seconds == 50 + 101 + 100
    assert gpu.data.known_s == 199
    assert gpu.clock.loaded_s == gpu.throttling.known_s == gpu.power.known_s == 199
    assert verdicts(gpu) == [UNKNOWN] * 4


def test_a_window_without_any_reading_is_one_gap() -> None:
    gpu = figures([], window=Window(BEGIN_S, BEGIN_S + 60))
    assert (gpu.data.gaps.count, gpu.data.gaps.seconds, gpu.data.known_s) == (1, 60, 0)
    assert verdicts(gpu) == [UNKNOWN] * 4


def test_points_thinned_to_one_a_minute_follow_each_other() -> None:
    gpu = figures(busy(60 * minute) for minute in range(61))
    assert gpu.data.interval_s == 60
    assert gpu.data.gaps.count == 0
    assert gpu.clock.loaded_s == 3600


def test_a_board_whose_limit_nobody_knows_still_tells_whose_cap_it_was() -> None:
    unknown = BoardFacts()
    ours = figures((capped(s) for s in range(61)), board=unknown)
    found = figures((capped(s, source="found") for s in range(61)), board=unknown)
    assert ours.throttling.policy_s("operator") == 60
    assert found.throttling.infrastructure_s == 0  # it may be the limit as delivered: nobody is accused


def test_the_worst_verdict_is_the_one_of_all_and_unknown_accuses_nobody() -> None:
    assert worst([PASS, UNKNOWN]) is PASS
    assert worst([PASS, WARN, UNKNOWN]) is WARN
    assert worst([WARN, FAIL]) is FAIL
    assert worst([UNKNOWN]) is worst([]) is UNKNOWN


@given(
    st.lists(st.floats(0.05, 40.0), min_size=1, max_size=120),
    st.integers(1, 50),
    st.floats(0.0, 30.0),
    st.floats(0.0, 30.0),
)
def test_all_time_is_known_or_a_gap_and_nothing_known_lies_outside(
    steps: list[float], chunk: int, before_s: float, after_s: float
) -> None:
    seconds = list(accumulate(steps))
    moments = [replace(busy(0), wall_s=BEGIN_S + second) for second in seconds]
    window = Window(BEGIN_S + seconds[0] - before_s, BEGIN_S + seconds[-1] + after_s + 1.0)
    gpu = figures(moments, window=window, chunk=chunk)
    rounding_s = 0.001 * (len(moments) + 2)
    assert gpu.data.known_s + gpu.data.gaps.seconds == pytest.approx(gpu.data.wanted_s, abs=rounding_s)
    assert gpu.power.known_s <= gpu.data.known_s + rounding_s
    assert gpu.clock.loaded_s == pytest.approx(gpu.throttling.known_s)
    assert gpu.data.samples == len(moments)
