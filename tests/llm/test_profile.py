from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from slurm_power.adapters.serving_profile_file import read_serving_profile
from slurm_power.errors import ConfigError
from slurm_power.llm.power_budget import ServedModel, obey
from slurm_power.llm.profile import line
from slurm_power.llm.profile_json import parse_profile, profile_as_json
from tests.llm.made_up_profile import profile, shard

SHIPPED = ("llama-70b-h100", "llama-8b-h100")


def test_an_iteration_adds_prompt_sequences_and_context_and_is_stretched_by_the_clock() -> None:
    one = shard(2)
    at_full = one.iteration_s(batch=10, context_tokens=10_000, prompt_tokens=600, clock_mhz=2000)
    assert at_full == pytest.approx(0.06 + 10 * 0.0005 + 10_000 * 1e-7)
    assert one.iteration_s(batch=10, context_tokens=10_000, prompt_tokens=600, clock_mhz=1000) == pytest.approx(
        at_full / 0.6
    )


def test_prompts_beyond_the_last_point_go_on_as_the_last_line() -> None:
    assert shard(2).prompt_s(2000) == pytest.approx(0.08 + 1000 * 0.04 / 800)


def test_watts_lie_between_those_of_decoding_and_of_prompts() -> None:
    one = shard(2)
    decoding = one.iteration_watts(batch=16, context_tokens=0, prompt_tokens=0, clock_mhz=2000)
    assert decoding == pytest.approx(400.0 + 200.0 / 2)  # the logistic's middle
    mixed = one.iteration_watts(batch=16, context_tokens=0, prompt_tokens=1000, clock_mhz=2000)
    assert decoding < mixed < one.prefill_watts


def test_nothing_draws_less_than_an_idle_instance() -> None:
    assert shard(2).iteration_watts(batch=1, context_tokens=0, prompt_tokens=0, clock_mhz=1) >= shard(2).idle_watts


def test_the_largest_batch_within_watts_keeps_within_them_and_one_more_does_not() -> None:
    one = shard(2)
    batch = one.batch_within(480.0, clock_mhz=2000, most=32)
    assert 0 < batch < 32
    assert one.decode_draw.watts(batch) <= 480.0 < one.decode_draw.watts(batch + 1)
    assert one.batch_within(10.0, clock_mhz=2000, most=32) == 0


def test_a_profile_answers_what_a_watt_budget_asks() -> None:
    found = obey([ServedModel("large", shard(2))], instances=2, budget_watts=900.0, max_num_seqs=32)
    assert (found.clock_mhz, found.holds) == (1000, True)


@pytest.mark.parametrize("x", [-1.0, 0.0, 0.5, 1.0, 2.0, 9.0])
def test_a_line_never_leaves_its_points(x: float) -> None:
    assert 1.0 <= line(x, (0.0, 1.0, 2.0), (1.0, 3.0, 4.0)) <= 4.0


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_says_what_it_is_and_reads_the_same_again(name: str) -> None:
    shipped = read_serving_profile(Path(name))
    assert "composed, not measured on one machine" in shipped.origin
    assert shipped.formula
    assert shipped.fit_error_fraction
    again = parse_profile(json.loads(json.dumps(profile_as_json(shipped))), where="again")
    assert again == shipped


@pytest.mark.parametrize("name", SHIPPED)
def test_in_a_shipped_profile_a_lower_clock_is_slower_and_draws_less(name: str) -> None:
    for one in read_serving_profile(Path(name)).shards.values():
        times = [
            one.iteration_s(batch=8, context_tokens=8000, prompt_tokens=256, clock_mhz=mhz) for mhz in one.clocks_mhz
        ]
        watts = [one.draw_watts(clock_mhz=mhz, batch=8) for mhz in one.clocks_mhz]
        assert all(slow > fast for slow, fast in pairwise(times))
        assert all(low < high for low, high in pairwise(watts))


def broken(**changes: Any) -> dict[str, Any]:
    return profile_as_json(profile()) | changes


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "must be a table"),
        (broken(colour="red"), "unknown key 'colour'"),
        (broken(shards=[]), "at least one"),
        (broken(name=""), "name: must be a text"),
        (broken(clock={"clocks_mhz": [2, 1], "speed_fractions": [0.5, 1], "watts_fractions": [0.5, 1]}), "must ascend"),
        (broken(clock={"clocks_mhz": [1], "speed_fractions": [0.5], "watts_fractions": [1.0]}), "end with 1"),
        (broken(server={"gpus": 1, "off_watts_per_gpu": 0, "host_watts": 0, "boot_s": 0}), "more than the server's 1"),
        (broken(server={"gpus": True, "off_watts_per_gpu": 0, "host_watts": 0, "boot_s": 0}), "must be a number"),
    ],
)
def test_what_is_no_profile_is_refused_in_one_line(raw: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        parse_profile(raw, where="there")
    assert str(refused.value).startswith("there")
    assert "\n" not in str(refused.value)
