"""Traces of requests, and the week that is made of an hour."""

from __future__ import annotations

import numpy as np
import pytest

from slurm_power.errors import ConfigError
from slurm_power.replay.serving.trace import (
    DAY_S,
    Requests,
    busiest,
    read_requests,
    scaled,
    week_of,
    week_share,
    with_burst,
)

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def hour(count: int = 3000, seed: int = 3) -> Requests:
    rng = np.random.default_rng(seed)
    return Requests(
        np.sort(rng.random(count)) * 3600.0, rng.integers(1, 2000, count), rng.integers(1, 400, count), 3600.0
    )


def test_azures_columns_are_read_and_counted_from_the_first_request() -> None:
    lines = [HEADER, "2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109"]
    found = read_requests(lines, where="trace.csv")
    assert found.arrival_s.tolist() == pytest.approx([0.0, 4.314579], abs=1e-6)
    assert found.prompt_tokens.tolist() == [374, 396]
    assert found.output_tokens.tolist() == [44, 109]


def test_seconds_are_read_too_and_put_in_order() -> None:
    found = read_requests([HEADER, "7.5,2,1", "5,1,1", ""], where="trace.csv")
    assert found.arrival_s.tolist() == [0.0, 2.5]
    assert found.prompt_tokens.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "first line must be"),
        (["time,in,out", "1,2,3"], "first line must be"),
        ([HEADER, "1,2,3"], "at least two"),
        ([HEADER, "1,2,3", "1,2,3"], "same time"),
        ([HEADER, "1,2,3", "yesterday,2,3"], "line 3"),
        ([HEADER, "1,2,3", "2,0,3"], "line 3"),
        ([HEADER, "1,2,3", "2,5"], "line 3"),
        ([HEADER, "1,2,3", "nan,5,5"], "line 3"),
        ([HEADER, "1,2,3", "2,99999999999,5"], "line 3"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(lines: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        read_requests(lines, where="trace.csv")
    assert "trace.csv" in str(refused.value)


def test_the_weeks_shape_has_the_stated_ratios() -> None:
    share = week_share(np.arange(0.0, 7 * DAY_S, 60.0))
    weekday, saturday = share[: 5 * 1440], share[5 * 1440 : 6 * 1440]
    assert weekday.max() == pytest.approx(1.0)
    assert weekday.max() / weekday.mean() == pytest.approx(1.7, rel=0.001)
    assert weekday.max() / weekday.min() == pytest.approx(3.3, rel=0.001)
    assert saturday.mean() / weekday.mean() == pytest.approx(0.7, rel=0.001)


def test_a_week_is_thinned_and_repeated_and_the_same_seed_makes_the_same_week() -> None:
    few = hour(count=300)
    week = week_of(few, seed=5)
    assert week.span_s == 7 * DAY_S
    mean_share = float(week_share(np.arange(0.0, 7 * DAY_S, 60.0)).mean())
    assert week.count == pytest.approx(300 * 168 * mean_share, rel=0.02)
    assert (np.diff(week.arrival_s) >= 0).all()
    again = week_of(few, seed=5)
    assert np.array_equal(week.arrival_s, again.arrival_s)
    assert not np.array_equal(week.arrival_s[:100], week_of(few, seed=6).arrival_s[:100])


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_a_scaled_trace_has_so_many_times_the_requests_in_the_same_time(factor: float) -> None:
    found = scaled(hour(), factor)
    assert found.span_s == 3600.0
    assert found.count == pytest.approx(3000 * factor, rel=0.05)
    assert found.prompt_tokens.mean() == pytest.approx(hour().prompt_tokens.mean(), rel=0.05)


def test_a_burst_doubles_arrivals_for_a_while_and_nothing_else() -> None:
    burst = with_burst(hour(), from_s=600.0, length_s=300.0)
    before, during = hour().between(0.0, 600.0), hour().between(600.0, 900.0)
    assert burst.between(0.0, 600.0).count == before.count
    assert burst.count == hour().count + during.count


def test_the_busiest_window_is_found() -> None:
    assert busiest(with_burst(hour(), from_s=1800.0, length_s=300.0)) == pytest.approx(1800.0, abs=61.0)
