from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.forecasting.forecast import QUANTILES, Forecaster, Sample, SeriesForecast
from slurm_power.forecasting.naive import NaiveForecaster, PersistenceForecaster, SameTimeYesterdayForecaster
from slurm_power.forecasting.settings import ForecastConfig

PERIOD_S, SLOT_S = 240.0, 10.0  # a compressed day of 24 slots
CONFIG = ForecastConfig(
    period_s=PERIOD_S, residual_window_s=10 * PERIOD_S, bias_window_s=30.0, bias_decay_s=60.0, min_errors=10
)
NAIVE = NaiveForecaster(CONFIG, slot_s=SLOT_S)
YESTERDAY = SameTimeYesterdayForecaster(CONFIG, slot_s=SLOT_S)
PERSISTENCE = PersistenceForecaster(CONFIG, slot_s=SLOT_S)


def shape(slot: int) -> float:
    return 5000.0 + 2000.0 * math.sin(2 * math.pi * slot / 24)


def history(watts: Sequence[float]) -> list[Sample]:
    return [Sample(SLOT_S * i, w) for i, w in enumerate(watts)]


def forecast(forecaster: Forecaster, samples: Sequence[Sample], *, at_slot: int, slots: int = 24) -> SeriesForecast:
    return forecaster.forecast(samples, start_wall_s=SLOT_S * at_slot, slots=slots)


@pytest.mark.parametrize("forecaster", [NAIVE, YESTERDAY], ids=["naive", "yesterday"])
def test_a_load_that_repeats_is_forecast_exactly(forecaster: Forecaster) -> None:
    result = forecast(forecaster, history([shape(i) for i in range(96)]), at_slot=96, slots=30)
    assert result.quantile(0.5) == pytest.approx([shape(96 + i) for i in range(30)])
    assert result.quantile(0.95) == pytest.approx(result.quantile(0.1))
    assert result.slot_s == SLOT_S


def test_a_day_that_runs_higher_than_yesterday_is_followed_and_the_correction_fades() -> None:
    watts = [shape(i) for i in range(90)] + [shape(i) + 1000.0 for i in range(90, 96)]
    result = forecast(NAIVE, history(watts), at_slot=96)
    plain = forecast(YESTERDAY, history(watts), at_slot=96)
    apart = np.array(result.quantile(0.5)) - np.array(plain.quantile(0.5))
    assert apart[0] > 500.0
    assert abs(apart[17]) < 0.2 * apart[0]


def test_persistence_is_the_mean_of_the_last_slots() -> None:
    result = forecast(PERSISTENCE, history([1000.0] * 20 + [4000.0] * 3), at_slot=23, slots=4)
    assert result.model.startswith("persistence")
    assert result.quantile(0.5)[0] >= 4000.0


def test_too_little_history_is_persistence_with_a_stated_band() -> None:
    result = forecast(NAIVE, history([2000.0] * 5), at_slot=5, slots=3)
    assert result.quantile(0.5) == pytest.approx([2000.0] * 3)
    assert result.quantile(0.1) == pytest.approx([1000.0] * 3)
    assert result.quantile(0.9) == pytest.approx([3000.0] * 3)
    assert result.quantile(0.95) == pytest.approx([3250.0] * 3)
    assert "stated band of 50%" in result.model
    assert "last value for 3 slots" in result.model


def test_one_reading_is_enough_to_forecast() -> None:
    assert forecast(NAIVE, history([700.0]), at_slot=1, slots=2).quantile(0.5) == (700.0, 700.0)


def test_a_gap_yesterday_is_filled_from_the_day_before() -> None:
    samples = [s for s in history([shape(i) for i in range(96)]) if not 72 <= s.start_wall_s / SLOT_S < 80]
    result = forecast(YESTERDAY, samples, at_slot=96, slots=8)
    assert result.quantile(0.5) == pytest.approx([shape(i) for i in range(8)])


@pytest.mark.parametrize("forecaster", [NAIVE, YESTERDAY, PERSISTENCE])
def test_nothing_may_look_into_the_future(forecaster: Forecaster) -> None:
    with pytest.raises(ValueError, match="past the start"):
        forecast(forecaster, history([1.0] * 10), at_slot=9)


def test_no_history_cannot_be_forecast() -> None:
    with pytest.raises(ValueError, match="no history"):
        forecast(NAIVE, [], at_slot=0)


def test_the_band_covers_about_what_it_says_on_days_it_has_not_seen() -> None:
    rng = np.random.default_rng(7)
    watts = [shape(i) + float(rng.normal(0, 300)) for i in range(24 * 20)]
    inside, total = 0, 0
    for origin in range(24 * 12, 24 * 19, 5):
        result = forecast(NAIVE, history(watts[:origin]), at_slot=origin)
        truth = np.array(watts[origin : origin + 24])
        inside += int(((truth >= result.quantile(0.1)) & (truth <= result.quantile(0.9))).sum())
        total += 24
    assert 0.72 <= inside / total <= 0.90


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.none(), st.floats(0.0, 1e6)), min_size=1, max_size=120).filter(
        lambda values: any(value is not None for value in values)
    ),
    st.integers(1, 60),
)
def test_quantiles_never_cross_and_are_never_negative(watts: list[float | None], slots: int) -> None:
    samples = [Sample(SLOT_S * i, w) for i, w in enumerate(watts) if w is not None]
    for forecaster in (NAIVE, YESTERDAY, PERSISTENCE):
        result = forecaster.forecast(samples, start_wall_s=SLOT_S * len(watts), slots=slots)
        rows = np.array([result.quantile(q) for q in QUANTILES])
        assert rows.shape == (len(QUANTILES), slots)
        assert (rows >= 0).all()
        assert (np.diff(rows, axis=0) >= 0).all()


@pytest.mark.parametrize("key", ["period_s", "bias_decay_s", "stated_band_fraction", "min_errors"])
def test_bad_settings_are_refused_by_key(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        ForecastConfig(**{key: 0})  # type: ignore[arg-type]
