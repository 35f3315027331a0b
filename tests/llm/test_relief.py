"""When instances whose jobs have a time limit are relieved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.llm.relief import TimeLeft, relief_starts


def starts(*left_s: float, limit_s: float | None = None, each_s: float = 300.0) -> list[float]:
    found = relief_starts([TimeLeft(n, left, limit_s) for n, left in enumerate(left_s)], each_s=each_s)
    return [found[n] for n in range(len(left_s))]


def test_a_relief_starts_as_late_as_it_can() -> None:
    assert starts(1000.0) == [700.0]
    assert starts(200.0) == [-100.0]


def test_who_ends_together_is_relieved_one_after_the_other() -> None:
    assert starts(1000.0, 1000.0, 1000.0) == pytest.approx([700.0, 400.0, 100.0])
    assert starts(1000.0, 5000.0) == [700.0, 4700.0]


def test_nobody_is_relieved_in_the_first_half_of_its_time() -> None:
    assert starts(350.0, limit_s=400.0) == [150.0]
    assert starts(150.0, limit_s=400.0) == [-50.0]


@given(st.lists(st.floats(0.0, 5000.0), max_size=8))
def test_every_relief_has_its_time_before_the_next_one_and_before_the_end(left_s: list[float]) -> None:
    order = sorted(zip(starts(*left_s), left_s, strict=True))
    ends = [start + 300.0 for start, _ in order]
    assert all(end <= left + 1e-6 for end, (_, left) in zip(ends, order, strict=True))
    assert all(end <= later + 1e-6 for end, (later, _) in zip(ends, order[1:], strict=False))
