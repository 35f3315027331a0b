"""The predictor of output lengths: learns callers and models, holds its bound, forgets the oldest, survives JSON."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from slurm_power.errors import ConfigError
from slurm_power.llm.output_length import OutputLengths


def taught(lengths: OutputLengths, caller: str, tokens: int, *, times: int = 50, **more: Any) -> None:
    for _ in range(times):
        lengths.learn(model="m", caller=caller, prompt_tokens=100, output_tokens=tokens, **more)


def median(lengths: OutputLengths, caller: str, **more: Any) -> float:
    return lengths.predict(model="m", caller=caller, prompt_tokens=100, **more).median_tokens


def test_each_caller_is_learnt_and_a_new_one_is_guessed_from_the_model() -> None:
    lengths = OutputLengths()
    for _ in range(50):
        taught(lengths, "terse", 10, times=1)
        taught(lengths, "wordy", 1000, times=1)
    assert median(lengths, "terse") == pytest.approx(10, rel=0.5)
    assert median(lengths, "wordy") == pytest.approx(1000, rel=0.5)
    assert 20 < median(lengths, "new") < 500


def test_a_long_prompt_is_told_from_a_short_one_of_the_same_caller() -> None:
    lengths = OutputLengths()
    for _ in range(100):
        lengths.learn(model="m", caller="a", prompt_tokens=100, output_tokens=30)
        lengths.learn(model="m", caller="a", prompt_tokens=3000, output_tokens=600)
    short = lengths.predict(model="m", caller="a", prompt_tokens=120).median_tokens
    long = lengths.predict(model="m", caller="a", prompt_tokens=2500).median_tokens
    assert short < 60 < 300 < long


def test_the_upper_bound_holds_for_the_asked_share_of_answers() -> None:
    lengths, draw = OutputLengths(), random.Random(5)
    below = 0
    for number in range(4000):
        caller = f"c{number % 7}"
        tokens = max(1, round(draw.lognormvariate(4.0 + number % 7 * 0.3, 0.8)))
        if number >= 1000:
            bound = lengths.predict(model="m", caller=caller, prompt_tokens=400, upper_fraction=0.9).upper_tokens
            below += tokens <= bound
        lengths.learn(model="m", caller=caller, prompt_tokens=400, output_tokens=tokens)
    assert 0.87 < below / 3000 < 0.93


def test_a_caller_that_changes_is_followed() -> None:
    lengths = OutputLengths()
    taught(lengths, "a", 20, times=500)
    taught(lengths, "a", 800, times=500)
    assert median(lengths, "a") > 400


def test_no_prediction_exceeds_what_the_request_allows() -> None:
    lengths = OutputLengths()
    taught(lengths, "a", 500)
    found = lengths.predict(model="m", caller="a", prompt_tokens=100, max_tokens=16)
    assert (found.median_tokens, found.upper_tokens) == (16, 16)


def test_an_answer_cut_off_short_does_not_teach_that_answers_are_short() -> None:
    lengths = OutputLengths()
    taught(lengths, "a", 500)
    before = median(lengths, "a")
    taught(lengths, "a", 5, cut_off=True)
    assert median(lengths, "a") == before


def test_ever_new_callers_and_models_do_not_grow_it() -> None:
    lengths = OutputLengths(most_callers=100)
    for number in range(5000):
        lengths.learn(model=f"m{number}", caller=f"{number}" * 100, prompt_tokens=1, output_tokens=number)
    assert len(lengths) == 100
    assert len(json.dumps(lengths.to_json())) < 200_000


def test_it_predicts_the_same_after_a_way_through_json() -> None:
    lengths, draw = OutputLengths(), random.Random(1)
    for _ in range(700):
        caller = draw.choice("abc")
        lengths.learn(model="m", caller=caller, prompt_tokens=draw.randrange(2000), output_tokens=draw.randrange(900))
    again = OutputLengths.from_json(json.loads(json.dumps(lengths.to_json())))
    asked = {"model": "m", "caller": "b", "prompt_tokens": 700}
    assert again.predict(**asked) == lengths.predict(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "raw",
    [None, [], {}, {"models": {}, "callers": [["m", "c", [[1, float("nan")]]]]}, {"models": {"m": 3}, "callers": []},
     {"models": {}, "callers": [["m", "c", [["x", 1]] * 4]]}, {"models": {}, "callers": 7}],
)  # fmt: skip
def test_what_it_did_not_write_is_refused(raw: object) -> None:
    with pytest.raises(ConfigError, match="output lengths"):
        OutputLengths.from_json(raw)
