from __future__ import annotations

import pytest

from slurm_power.llm.arrivals import ArrivalConfig, ArrivalForecast
from slurm_power.llm.operating_point import Load
from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass

SMALL, LARGE = REQUEST_CLASSES[0], REQUEST_CLASSES[-1]
CONFIG = ArrivalConfig(slots_per_week=100, share_memory=0.5)


def seen(tokens_per_s: float) -> dict[RequestClass, Load]:
    return {SMALL: Load(1.0, 0.25 * tokens_per_s, 0.0), LARGE: Load(2.0, 0.5 * tokens_per_s, 0.25 * tokens_per_s)}


def tokens(load: dict[RequestClass, Load]) -> float:
    return sum(one.prompt_tokens_per_s + one.output_tokens_per_s for one in load.values())


def learnt(forecast: ArrivalForecast, loads: list[float]) -> ArrivalForecast:
    for slot, one in enumerate(loads):
        forecast.foresee(slot, 1)
        forecast.learn(slot, seen(one))
    return forecast


def test_without_a_template_the_recent_load_goes_on_with_a_margin() -> None:
    forecast = ArrivalForecast(CONFIG)
    forecast.learn(0, seen(100.0))
    assert tokens(forecast.foresee(1, 6)) == pytest.approx(100.0 * CONFIG.unknown_growth)


def test_the_template_says_that_load_will_rise_and_recent_load_how_far() -> None:
    template = {slot: 100.0 if slot < 50 else 200.0 for slot in range(100)}
    forecast = ArrivalForecast(CONFIG, template=template)
    for slot in range(20):
        forecast.learn(slot, seen(50.0))  # half of the usual week
    later = tokens(forecast.foresee(60, 1))
    assert later == pytest.approx(100.0 * CONFIG.unknown_growth)


def test_an_epoch_is_planned_for_its_highest_slot() -> None:
    forecast = ArrivalForecast(CONFIG, template={slot: float(slot + 1) for slot in range(100)})
    forecast.learn(20, seen(21.0))
    assert tokens(forecast.foresee(21, 10)) > tokens(forecast.foresee(21, 1))


def test_the_margin_comes_from_how_far_forecasts_were_off() -> None:
    steady = learnt(ArrivalForecast(CONFIG), [100.0] * 40)
    assert tokens(steady.foresee(40, 1)) == pytest.approx(100.0)
    jumpy = learnt(ArrivalForecast(CONFIG), [100.0, 100.0, 100.0, 160.0] * 10)
    assert tokens(jumpy.foresee(40, 1)) > 1.2 * jumpy.recent_tokens_per_s()


def test_classes_keep_their_shares() -> None:
    forecast = learnt(ArrivalForecast(CONFIG), [100.0] * 30)
    load = forecast.foresee(30, 1)
    assert load[LARGE].prompt_tokens_per_s == pytest.approx(2 * load[SMALL].prompt_tokens_per_s)


def test_silence_is_foreseen_as_silence_and_not_as_an_error() -> None:
    forecast = learnt(ArrivalForecast(CONFIG), [0.0] * 20)
    assert tokens(forecast.foresee(20, 6)) == 0.0


def test_errors_are_bounded() -> None:
    config = ArrivalConfig(slots_per_week=100, errors_kept=20)
    forecast = learnt(ArrivalForecast(config), [100.0] * 300)
    assert len(forecast._errors) == 20


def test_silence_before_the_first_requests_says_nothing_of_their_shares() -> None:
    forecast = learnt(ArrivalForecast(CONFIG), [0.0] * 5 + [100.0])
    load = forecast.foresee(6, 1)
    assert load[LARGE].prompt_tokens_per_s == pytest.approx(2 * load[SMALL].prompt_tokens_per_s)
    assert load[LARGE].prompt_tokens_per_s > 0
