"""The learned forecast: better than yesterday where there is something to learn, sure of its bands, blind ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slurm_power.forecasting import backtest as backtest_module
from slurm_power.forecasting import boosted
from slurm_power.forecasting.backtest import LookedAhead, backtest
from slurm_power.forecasting.boosted import BoostedModel, train
from slurm_power.forecasting.calibration import horizon_groups, shifts
from slurm_power.forecasting.grid import Series, even_series
from slurm_power.forecasting.rolling import QUANTILES, RollingConfig, _guarded, roll, truth_of
from slurm_power.forecasting.scores import pinball_watts, score

SLOT_S = 3600.0
DAY = 24


def weekly_load(days: int, *, noise_watts: float = 20.0, seed: int = 0) -> Series:
    """A day and a week that repeat, with noise that lasts some hours."""
    random = np.random.default_rng(seed)
    hours = np.arange(days * DAY)
    shape = 1000 + 300 * np.sin(2 * np.pi * (hours % DAY) / DAY) - 250 * ((hours // DAY) % 7 >= 5)
    drift = np.zeros(hours.size)
    for i in range(1, hours.size):
        drift[i] = 0.9 * drift[i - 1] + random.normal(0, noise_watts)
    return even_series(hours * SLOT_S, shape + drift, slot_s=SLOT_S)


@pytest.fixture(autouse=True)
def _small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for such plain series, and quick."""
    monkeypatch.setattr(boosted, "_ROUNDS", 20)
    monkeypatch.setattr(boosted, "_PAIRS", 6000)


QUICK = RollingConfig(refit_days=14.0, calibration_days=14.0, guard_days=5.0)


def test_a_series_is_made_even_and_its_gaps_take_the_day_before() -> None:
    hours = np.array([h for h in range(96) if h != 50])
    series = even_series(hours * SLOT_S, hours.astype(float), slot_s=SLOT_S)
    assert series.watts.size == 96
    assert series.watts[50] == 26.0
    assert not series.known[50]


def test_minutes_become_the_means_of_their_slots() -> None:
    minutes = np.arange(120)
    series = even_series(minutes * 60.0, minutes.astype(float), slot_s=SLOT_S)
    assert series.watts.tolist() == [29.5, 89.5]


def test_a_model_reads_only_what_lies_before_the_origin() -> None:
    series = weekly_load(60)
    model = train(series.until(50 * DAY), slots=DAY, quantiles=(0.1, 0.5, 0.9))
    assert model is not None
    origins = np.array([52 * DAY])
    told = model.predict(series, origins)
    planted = replace(series, watts=np.concatenate([series.watts[: 52 * DAY], series.watts[52 * DAY :] * 5]))
    assert np.array_equal(told, model.predict(planted, origins))
    with pytest.raises(ValueError, match="has seen slots after"):
        model.predict(series, np.array([49 * DAY]))


def test_a_saved_model_forecasts_the_same_and_other_text_is_refused() -> None:
    series = weekly_load(60)
    model = train(series.until(50 * DAY), slots=6, quantiles=(0.5,))
    assert model is not None
    again = BoostedModel.from_text(model.to_text())
    origins = np.array([55 * DAY])
    assert np.array_equal(model.predict(series, origins), again.predict(series, origins))
    for text in ("{}", "[]", '{"format": 99}', "no json"):
        with pytest.raises(ValueError, match=r"format|model|Expecting"):
            BoostedModel.from_text(text)


def test_too_short_a_history_teaches_nothing() -> None:
    assert train(weekly_load(4), slots=DAY, quantiles=(0.5,)) is None


def test_the_learned_forecast_beats_yesterday_and_its_bands_hold() -> None:
    found = backtest(weekly_load(140), days=28, config=QUICK)
    assert found.pinball_ratio_to_naive < 0.97
    ours = found.scores["ours"]
    assert ours.coverage_95 == pytest.approx(0.95, abs=0.05)
    assert ours.coverage_80 == pytest.approx(0.8, abs=0.1)


def test_noise_alone_is_not_learned_but_left_to_the_naive_forecast() -> None:
    random = np.random.default_rng(1)
    hours = np.arange(60 * DAY)
    series = even_series(hours * SLOT_S, 1000 + random.normal(0, 50, hours.size), slot_s=SLOT_S)
    rolled = roll(series, first=46 * DAY, last=60 * DAY, slots=DAY, config=QUICK)
    naive = roll(series, first=46 * DAY, last=60 * DAY, slots=DAY, config=replace(QUICK, history_days=2.0))
    loss, of_naive = (pinball_watts(r.watts, r.truth, QUANTILES) for r in (rolled, naive))
    assert not naive.learned.any()
    assert loss <= 1.05 * of_naive


def test_a_forecaster_that_looks_ahead_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = backtest_module.roll

    def cheating(series: Series, **options: object) -> object:
        rolled = honest(series, **options)  # type: ignore[arg-type]
        future = truth_of(series, rolled.origins, DAY)
        return replace(rolled, watts=np.repeat(np.nan_to_num(future)[:, None, :], len(QUANTILES), axis=1))

    monkeypatch.setattr(backtest_module, "roll", cheating)
    with pytest.raises(LookedAhead):
        backtest(weekly_load(80), days=14, config=QUICK)


def test_a_series_too_short_to_test_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        backtest(weekly_load(20), days=14, config=QUICK)


def test_shifts_make_the_stated_share_fall_below() -> None:
    random = np.random.default_rng(2)
    errors = random.normal(10, 5, (200, 2, 4))
    moved = shifts(errors, (0.5, 0.9), [(0, 4)])
    assert np.mean(errors[:, 0] <= moved[0]) == pytest.approx(0.5, abs=0.02)
    assert np.mean(errors[:, 1] <= moved[1]) == pytest.approx(0.9, abs=0.02)


def test_horizon_groups_cover_every_slot_once() -> None:
    groups = horizon_groups(48, 48)
    assert [slot for begin, end in groups for slot in range(begin, end)] == list(range(48))


def test_scores_see_the_peak_and_its_hour() -> None:
    truth = np.array([[1.0, 5.0, 2.0, 1.0]])
    forecast = np.repeat(np.array([[1.0, 2.0, 4.0, 1.0]])[:, None, :], 3, axis=1)
    found = score(forecast, truth, (0.1, 0.5, 0.9), slot_s=3600.0)
    assert found.peak_mape_fraction == pytest.approx(0.2)
    assert found.peak_hour_hit_fraction == 1.0
    assert found.coverage_95 is None


@pytest.mark.parametrize(
    ("learned_off", "week_off", "first_day", "chosen"),
    [
        pytest.param(95.0, 100.0, 40, 100.0, id="a-little-better-is-chance"),
        pytest.param(80.0, 100.0, 60, 80.0, id="clearly-better-is-used"),
        pytest.param(80.0, 100.0, 40, 82.4, id="on-a-short-record-clearly-better-has-most-of-the-say"),
        pytest.param(20.0, 100.0, 40, 20.0, id="much-better-has-all-of-it-there-too"),
        pytest.param(100.0, 50.0, 40, 50.3, id="a-week-ago-after-four-weeks"),
        pytest.param(100.0, 50.0, 10, 100.0, id="a-week-ago-not-on-a-short-record"),
    ],
)
def test_yesterday_is_left_only_for_what_was_clearly_better(
    learned_off: float, week_off: float, first_day: int, chosen: float
) -> None:
    days = 10
    origins = np.arange(first_day * DAY, (first_day + days) * DAY, dtype=np.int64)
    truth = np.zeros((origins.size, DAY))
    candidates = [np.full((origins.size, 1, DAY), off) for off in (learned_off, 100.0, week_off)]
    made = np.ones(origins.size, dtype=np.bool_)
    found, _ = _guarded(candidates, truth, origins, (0.5,), made, period=DAY, config=QUICK)
    assert found[0, 0, 0] == 100.0  # nothing is known yet
    assert found[-1, 0, 0] == pytest.approx(chosen, abs=0.1)
