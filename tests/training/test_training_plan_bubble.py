"""The three numbers of a bubble, side by side."""

from __future__ import annotations

import pytest

from training.errors import ConfigError
from training.planning.bubble import bubble_report
from training.planning.replay import StageTimes, uniform


def test_even_stages_without_overhead_give_the_same_number_three_times() -> None:
    report = bubble_report(
        "1f1b", 2, 4, stage_times=uniform(2, forward_s=1.0, backward_s=2.0), busy_s=(12.0, 12.0), step_s=15.0
    )
    assert report.formula_fraction == pytest.approx(0.2)
    assert report.replay_fraction == pytest.approx(0.2)
    assert report.measured_fraction == pytest.approx(0.2)
    assert report.text() == "bubble (1f1b, 2 ranks, 4 micro-batches): formula 20.0%, replayed 20.0%, measured 20.0%"


def test_imbalance_shows_between_formula_and_replay_and_overhead_behind_it() -> None:
    times = StageTimes(forward_s=(1.0, 2.0), backward_s=(2.0, 4.0))
    report = bubble_report("1f1b", 2, 4, stage_times=times, busy_s=(12.0, 24.0), step_s=30.0)
    assert report.formula_fraction < report.replay_fraction < report.measured_fraction
    assert report.replay_fraction == pytest.approx(1 - 36 / (2 * 27))  # 1 + 4 x 6 + 2
    assert report.measured_fraction == pytest.approx(0.4)


def test_what_was_not_measured_is_not_known() -> None:
    report = bubble_report("dualpipev", 2, 4)
    assert report.replay_fraction is None
    assert report.measured_fraction is None
    assert report.text().endswith("formula 14.3%, replayed not known, measured not known")


def test_the_formula_of_dualpipev_follows_the_measured_ratio_of_backward_to_forward() -> None:
    even = bubble_report("dualpipev", 2, 4, stage_times=uniform(4, forward_s=1.0, backward_s=1.0))
    assert even.formula_fraction == pytest.approx(3 / 19)
    assert even.replay_fraction == pytest.approx(even.formula_fraction)


def test_a_rank_busier_than_the_step_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"busy_s = 16\.0: must be within the step's 15 s"):
        bubble_report("1f1b", 2, 4, busy_s=(12.0, 16.0), step_s=15.0)
    with pytest.raises(ConfigError, match="must be one for each of 2 ranks"):
        bubble_report("1f1b", 2, 4, busy_s=(12.0,), step_s=15.0)
