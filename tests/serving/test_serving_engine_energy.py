"""Joules of requests: they and the idle ones add up to what the counters say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_wrappers.serving.engine.energy import SETTLE_S, EnergyShares


class Meter:
    """A counter and a clock that a test moves."""

    def __init__(self) -> None:
        self.joules: float | None = 1000.0
        self.at_s = 0.0
        self.shares = EnergyShares(lambda: self.joules, lambda: self.at_s)

    def step(self, tokens: dict[str, int], *, joules: float, took_s: float = SETTLE_S) -> None:
        self.shares.begin()
        self.rise(joules, took_s)
        self.shares.add(tokens)

    def rise(self, joules: float, took_s: float = 0.0) -> None:
        assert self.joules is not None
        self.joules += joules
        self.at_s += took_s


def test_a_step_is_shared_by_tokens() -> None:
    meter = Meter()
    meter.step({"a": 3, "b": 1}, joules=8.0)
    assert (meter.shares.take("a"), meter.shares.take("b")) == (6.0, 2.0)


def test_short_steps_are_shared_at_the_next_reading() -> None:
    meter = Meter()
    meter.step({"a": 1}, joules=0.0, took_s=0.01)
    meter.step({"a": 1, "b": 2}, joules=12.0, took_s=0.01)
    assert (meter.shares.take("b"), meter.shares.take("a")) == (6.0, 6.0)


def test_what_rises_while_nothing_runs_is_nobodys() -> None:
    meter = Meter()
    meter.rise(5.0, took_s=10.0)
    meter.step({"a": 1}, joules=2.0)
    meter.shares.pause()
    meter.rise(7.0, took_s=10.0)
    meter.step({"b": 1}, joules=4.0)
    assert (meter.shares.take("a"), meter.shares.take("b"), meter.shares.idle_joules) == (2.0, 4.0, 12.0)


def test_without_a_counter_shares_are_unknown_not_zero() -> None:
    shares = EnergyShares(lambda: None, lambda: 0.0)
    shares.begin()
    shares.add({"a": 1})
    assert shares.take("a") is None
    assert shares.total_joules is None


@pytest.mark.parametrize("reading", [None, 3.0], ids=["lost", "reset"])
def test_a_counter_that_is_lost_or_reset_makes_shares_unknown(reading: float | None) -> None:
    meter = Meter()
    meter.step({"a": 1}, joules=2.0)
    meter.joules = reading
    meter.at_s += SETTLE_S
    meter.shares.add({"a": 1})
    assert meter.shares.take("a") is None


_STEP = st.tuples(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 500), min_size=1),
    st.floats(0, 50),
    st.floats(0, 0.3),
    st.sampled_from(["go on", "pause", "finish"]),
)


@given(st.lists(_STEP, max_size=30))
def test_requests_and_idle_add_up_to_the_counters(steps: list[tuple[dict[str, int], float, float, str]]) -> None:
    meter, taken = Meter(), 0.0
    for tokens, joules, took_s, then in steps:
        meter.step(tokens, joules=joules, took_s=took_s)
        if then == "pause":
            meter.shares.pause()
            meter.rise(1.0, took_s=5.0)
            meter.shares.begin()
        if then == "finish":
            taken += meter.shares.take(next(iter(tokens))) or 0.0
    meter.shares.pause()
    taken += sum(meter.shares.take(name) or 0.0 for name in "abcd")
    assert meter.shares.total_joules == pytest.approx(taken + meter.shares.idle_joules)
    assert meter.joules is not None
    assert meter.shares.total_joules == pytest.approx(meter.joules - 1000.0)
