"""The IT load as the queue tells it."""

from __future__ import annotations

import pytest

from slurm_power.forecasting.forecast import QUANTILES, SeriesForecast
from slurm_power.forecasting.jobs import ItDraw, PendingDraw, RunningDraw, forecast_it_load
from slurm_power.forecasting.settings import ForecastConfig

CONFIG = ForecastConfig(queue_trust_s=3600.0, stated_band_fraction=0.2)


def load(draw: ItDraw, *, usual: SeriesForecast | None = None, it_max_watts: float = 10_000.0) -> SeriesForecast:
    return forecast_it_load(
        draw, usual=usual, it_max_watts=it_max_watts, start_wall_s=1000.0, slot_s=100.0, slots=6, config=CONFIG
    )


def test_a_running_job_draws_until_its_end_and_a_part_of_the_slot_counts_in_part() -> None:
    result = load(ItDraw(500.0, running=(RunningDraw(2000.0, 1250.0),)))
    assert result.quantile(0.5) == pytest.approx([2500, 2500, 1500, 500, 500, 500])


def test_a_job_without_a_limit_runs_on() -> None:
    assert load(ItDraw(500.0, running=(RunningDraw(2000.0, None),))).quantile(0.5) == pytest.approx([2500] * 6)


def test_a_pending_job_waits_for_room_under_the_site_maximum() -> None:
    draw = ItDraw(0.0, running=(RunningDraw(8000.0, 1200.0),), pending=(PendingDraw(5000.0, 200.0),))
    assert load(draw).quantile(0.5) == pytest.approx([8000, 8000, 5000, 5000, 0, 0])


def test_a_small_job_fits_in_beside_the_big_one() -> None:
    draw = ItDraw(
        0.0,
        running=(RunningDraw(8000.0, 1200.0),),
        pending=(PendingDraw(5000.0, 200.0), PendingDraw(1000.0, 200.0)),
    )
    assert load(draw).quantile(0.5) == pytest.approx([9000, 9000, 5000, 5000, 0, 0])


def test_a_job_is_not_started_before_its_users_own_begin() -> None:
    result = load(ItDraw(0.0, pending=(PendingDraw(1000.0, None, begin_wall_s=1300.0),)))
    assert result.quantile(0.5) == pytest.approx([0, 0, 0, 1000, 1000, 1000])


def test_a_job_that_never_fits_is_left_out() -> None:
    assert max(load(ItDraw(0.0, pending=(PendingDraw(20_000.0, 100.0),))).quantile(0.5)) == 0.0


def test_far_ahead_yesterday_speaks_and_now_the_queue_does() -> None:
    usual = SeriesForecast(1000.0, 100.0, dict.fromkeys(QUANTILES, (4000.0,) * 6), "yesterday")
    config = ForecastConfig(queue_trust_s=50.0)
    result = forecast_it_load(
        ItDraw(1000.0), usual=usual, it_max_watts=10_000.0, start_wall_s=1000.0, slot_s=100.0, slots=6, config=config
    )
    assert result.quantile(0.5)[0] == pytest.approx(1000.0)
    assert result.quantile(0.5)[5] == pytest.approx(4000.0, rel=0.01)
    assert result.model == "queue, then yesterday"


def test_the_band_grows_with_what_is_above_idle_and_never_passes_the_site_maximum() -> None:
    result = load(ItDraw(500.0, running=(RunningDraw(9000.0, None),)))
    assert result.quantile(0.1) == pytest.approx([9500 - 1800] * 6)
    assert result.quantile(0.9) == pytest.approx([10_000] * 6)
