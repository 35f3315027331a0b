from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.llm.operating_point import Load, capacity_per_s, full_chunk, largest_chunk, settle
from tests.llm.made_up_profile import shard

ONE = shard(2)


def mixed(requests_per_s: float) -> Load:
    return Load(requests_per_s, 500.0 * requests_per_s, 100.0 * requests_per_s)


def test_the_largest_chunk_fills_the_iteration_to_the_limit() -> None:
    chunk = largest_chunk(ONE, batch=10, context_tokens=5000, clock_mhz=2000, within_s=0.08)
    took_s = ONE.iteration_s(batch=10, context_tokens=5000, prompt_tokens=chunk, clock_mhz=2000)
    assert took_s == pytest.approx(0.08, abs=0.0002)


def test_no_chunk_fits_where_the_running_ones_are_too_slow_already() -> None:
    assert largest_chunk(ONE, batch=10, context_tokens=0, clock_mhz=500, within_s=0.08) == 0


def test_a_chunk_that_is_not_steered_holds_with_every_seat_taken() -> None:
    chunk = full_chunk(ONE, within_s=0.095)
    took_s = ONE.iteration_s(batch=32, context_tokens=32_000, prompt_tokens=chunk, clock_mhz=2000)
    assert took_s <= 0.095


def test_a_batch_is_what_arrives_while_answers_are_written() -> None:
    load = mixed(1.0)
    found = settle(ONE, load, clock_mhz=2000, chunk_tokens=500)
    assert found is not None
    assert found.batch == pytest.approx(load.output_tokens_per_s * found.iteration_s, rel=0.02)  # Little's law


def test_a_lower_clock_fills_more_seats_and_draws_less() -> None:
    fast = settle(ONE, mixed(1.0), clock_mhz=2000, chunk_tokens=500)
    slow = settle(ONE, mixed(1.0), clock_mhz=1000, chunk_tokens=500)
    assert fast is not None
    assert slow is not None
    assert slow.batch > fast.batch
    assert slow.watts < fast.watts


def test_too_much_load_does_not_settle() -> None:
    assert settle(ONE, mixed(50.0), clock_mhz=2000, chunk_tokens=500) is None


def test_no_load_needs_no_capacity() -> None:
    assert capacity_per_s(ONE, Load(), within_s=0.095, utilisation=0.8) == math.inf


@given(st.floats(50, 3000), st.floats(5, 500))
def test_capacity_grows_with_what_may_be_used(prompt: float, output: float) -> None:
    load = Load(1.0, prompt, output)
    low, high = (capacity_per_s(ONE, load, within_s=0.095, utilisation=share) for share in (0.5, 0.9))
    assert 0.0 < low <= high


def test_longer_answers_take_capacity() -> None:
    short, long = (
        capacity_per_s(ONE, Load(1.0, 200.0, output), within_s=0.095, utilisation=0.8) for output in (50.0, 400.0)
    )
    assert long < short
