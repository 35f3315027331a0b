"""The arithmetic of one device's joules: gaps, order, resets, wraps, missing counters."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.monitoring.energy import EnergyMeter, EnergyRules, Moment, Used, pieces_of, used_between
from slurm_power.monitoring.energy_check import CheckRules, CounterCheck

RULES = EnergyRules(most_watts=1000.0)
WRAPPING = EnergyRules(most_watts=1000.0, wraps_joules=262_144.0)

watts_by_second = st.lists(st.floats(0.0, 700.0), min_size=2, max_size=120)


def moments_of(watts: list[float], start_joules: float = 0.0) -> list[Moment]:
    """One reading a second: power holds for the second before it."""
    counters = accumulate(watts[1:], initial=start_joules)
    return [
        Moment(float(second), counter, draw) for second, (counter, draw) in enumerate(zip(counters, watts, strict=True))
    ]


def total(moments: list[Moment], rules: EnergyRules = RULES) -> Used:
    return sum((piece.used for piece in pieces_of(moments, rules=rules)), Used())


@given(watts_by_second, st.data())
def test_a_counter_needs_neither_every_reading_nor_their_order(watts: list[float], data: st.DataObject) -> None:
    moments = moments_of(watts)
    inner = data.draw(st.lists(st.sampled_from(moments), max_size=len(moments)))
    told = data.draw(st.permutations([moments[0], *inner, moments[-1]]))
    used = total(told)
    assert used.counted_joules == pytest.approx(sum(watts[1:]))
    assert (used.integrated_joules, used.unknown_s) == (0.0, 0.0)


@given(watts_by_second, st.floats(0.0, 262_143.0))
def test_a_counter_that_goes_round_counts_on(watts: list[float], start_joules: float) -> None:
    wrapped = [
        Moment(one.at_s, (one.energy_joules or 0.0) % 262_144.0, one.draw_watts)
        for one in moments_of(watts, start_joules)
    ]
    used = total(wrapped, WRAPPING)
    assert used.counted_joules == pytest.approx(sum(watts[1:]), abs=1e-6)


@given(watts_by_second, st.data())
def test_after_a_driver_reload_only_the_second_of_it_is_integrated(watts: list[float], data: st.DataObject) -> None:
    moments = moments_of([max(1.0, one) for one in watts], start_joules=1e6)
    at = data.draw(st.integers(1, len(moments) - 1))
    base = moments[at].energy_joules or 0.0
    reloaded = [
        one if index < at else Moment(one.at_s, (one.energy_joules or 0.0) - base, one.draw_watts)
        for index, one in enumerate(moments)
    ]
    used = total(reloaded)
    before, after = moments[at - 1].draw_watts or 0.0, moments[at].draw_watts or 0.0
    assert used.integrated_joules == pytest.approx((before + after) / 2)
    rest = sum(one.draw_watts or 0.0 for index, one in enumerate(moments) if index not in (0, at))
    assert used.counted_joules == pytest.approx(rest)
    assert used.unknown_s == 0.0


@given(watts_by_second, st.data())
def test_nothing_is_invented_for_a_gap_without_a_counter(watts: list[float], data: st.DataObject) -> None:
    moments = [Moment(one.at_s, None, one.draw_watts) for one in moments_of(watts)]
    begin = data.draw(st.integers(0, len(moments) - 1))
    end = data.draw(st.integers(begin, len(moments) - 1))
    told = moments[: begin + 1] + moments[end:]
    used = total(told)
    assert used.counted_joules == 0.0
    gap_s = float(end - begin)
    if gap_s > RULES.max_gap_s:
        assert used.unknown_s == gap_s
        known = [(a + b) / 2 for a, b in pairwise(watts)]
        outside = sum(known[:begin]) + sum(known[end:])
        assert used.integrated_joules == pytest.approx(outside)
    else:
        assert used.unknown_s == 0.0


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.none() | st.floats(0, 1e7), st.none() | st.floats(0, 700)), max_size=40)
)
def test_whatever_is_read_energy_is_never_negative_nor_more_than_boards_can_draw(
    readings: list[tuple[float, float | None, float | None]],
) -> None:
    for piece in pieces_of([Moment(*one) for one in readings], rules=RULES):
        length_s = piece.to_s - piece.from_s
        assert length_s > 0
        assert 0 <= piece.used.joules <= RULES.most_watts * (length_s + RULES.counter_lag_s)
        assert piece.used.unknown_s in (0.0, length_s)


def test_a_counter_that_rose_as_no_board_can_is_not_believed() -> None:
    before, after = Moment(0.0, 100.0, 300.0), Moment(1.0, 9e6, 300.0)
    assert used_between(before, after, rules=RULES) == Used(integrated_joules=300.0)


def test_a_reload_within_a_gap_leaves_what_was_counted_since_and_says_that_it_is_too_little() -> None:
    used = used_between(Moment(0.0, 5e6, None), Moment(600.0, 40_000.0, None), rules=RULES)
    assert used == Used(counted_joules=40_000.0, unknown_s=600.0)


def meter() -> EnergyMeter:
    return EnergyMeter(rules=RULES, check=CounterCheck(CheckRules(window_s=5.0)))


def test_a_counter_is_believed_once_it_agrees_with_the_power() -> None:
    one = meter()
    for moment in moments_of([300.0] * 21):
        one.add(moment)
    assert one.used == Used(counted_joules=300.0 * 16, integrated_joules=300.0 * 4)
    assert not one.counter_is_wrong


@pytest.mark.parametrize(("factor", "why"), [(0.001, "millijoules taken for joules"), (0.0, "stuck"), (1.9e3, "unit")])
def test_a_wrong_counter_is_found_out_and_power_is_integrated(factor: float, why: str) -> None:
    one = meter()
    for moment in moments_of([300.0] * 21):
        one.add(Moment(moment.at_s, 1e3 + factor * (moment.energy_joules or 0.0), moment.draw_watts))
    assert one.counter_is_wrong, why
    assert one.used == Used(integrated_joules=300.0 * 20)


def test_a_reading_that_comes_late_changes_nothing() -> None:
    one = meter()
    moments = moments_of([300.0] * 12)
    for moment in moments[:11]:
        one.add(moment)
    before = one.used
    one.add(moments[3])
    assert one.used == before
    one.add(moments[11])
    assert one.used.joules == pytest.approx(300.0 * 11)
