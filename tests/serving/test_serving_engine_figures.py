"""Latencies and rates of the last seconds."""

from __future__ import annotations

import pytest

from job_wrappers.serving.engine.figures import RATE_S, WINDOW_S, Quantiles, Rates, Recent


class Clock:
    at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def test_quantiles_are_of_the_window_alone() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.add(100.0)
    clock.at_s = WINDOW_S + 1
    for value in range(100):
        recent.add(float(value))
    assert recent.quantiles() == Quantiles(50.0, 95.0, 99.0, 100)


def test_nothing_seen_is_unknown_not_zero() -> None:
    assert Recent(Clock()).quantiles() == Quantiles(None, None, None, 0)


def test_rates_follow_the_last_seconds() -> None:
    clock = Clock()
    rates = Rates(clock)
    for second in range(1, 101):
        clock.at_s = float(second)
        rates.add(50 if second > 50 else 10, joules=second * 200.0)
    tokens_per_s, joules_per_token, watts = rates.now(100 * 200.0)
    assert (tokens_per_s, joules_per_token, watts) == (50.0, 4.0, 200.0)


def test_rates_fall_while_nothing_runs() -> None:
    clock = Clock()
    rates = Rates(clock)
    clock.at_s = 1.0
    rates.add(50, joules=None)
    clock.at_s = 1.0 + RATE_S
    assert rates.now(None)[0] == pytest.approx(0.0)


def test_a_look_at_the_counter_does_not_disturb_what_comes_after_it() -> None:
    clock = Clock()
    rates = Rates(clock)
    clock.at_s = 1.0
    rates.add(10, joules=100.0)
    clock.at_s = 1.5
    assert rates.now(170.0)[2] == pytest.approx(170.0 / 1.5)
    clock.at_s = 2.0
    rates.add(10, joules=160.0)  # as of a moment before the look
    assert rates.now(200.0)[1:] == (10.0, 100.0)


def test_idle_watts_are_known_too() -> None:
    clock = Clock()
    rates = Rates(clock)
    clock.at_s = 5.0
    assert rates.now(350.0) == (0.0, None, 70.0)


@pytest.mark.parametrize("readings", [[None, None, None], [900.0, 1000.0, 3.0]], ids=["no-counter", "reset"])
def test_joules_are_unknown_without_a_counter_and_after_a_reset(readings: list[float | None]) -> None:
    clock = Clock()
    rates = Rates(clock)
    for second, joules in enumerate(readings, start=1):
        clock.at_s = float(second)
        rates.add(10, joules)
    assert rates.now(readings[-1])[1:] == (None, None)
