"""Whole replays on a small made-up trace: what must hold whatever the managers decide."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from slurm_power.errors import ConfigError
from slurm_power.replay.serving.baseline import fewest_servers
from slurm_power.replay.serving.policies import POLICIES, Prices, SimulationConfig, policy_named
from slurm_power.replay.serving.result import Outcome
from slurm_power.replay.serving.simulate import simulate
from slurm_power.replay.serving.slower import slower
from slurm_power.replay.serving.trace import Requests
from tests.llm.made_up_profile import profile

PROFILE = profile()
SPAN_S = 3600.0


@lru_cache(maxsize=1)
def trace() -> Requests:
    """An hour whose load falls to a quarter after twenty minutes."""
    rng = np.random.default_rng(11)
    rate = np.where(np.arange(SPAN_S) < 1200.0, 10.0, 2.5)
    arrival_s = np.repeat(np.arange(SPAN_S), rng.poisson(rate)).astype(float)
    arrival_s += rng.random(arrival_s.size)
    arrival_s.sort()
    prompts = np.minimum(6000, rng.lognormal(6.0, 1.0, arrival_s.size)).astype(np.int64) + 1
    outputs = np.minimum(800, rng.lognormal(4.5, 0.8, arrival_s.size)).astype(np.int64) + 1
    return Requests(arrival_s, prompts, outputs, SPAN_S)


@lru_cache(maxsize=1)
def servers() -> int:
    return fewest_servers(trace(), PROFILE)


def config(name: str) -> SimulationConfig:
    return SimulationConfig(policy=POLICIES[name], profile=PROFILE, servers=servers())


@lru_cache(maxsize=16)
def outcome(name: str) -> Outcome:
    return simulate(trace(), config(name))


@pytest.mark.parametrize("name", POLICIES)
def test_every_request_is_answered_once(name: str) -> None:
    found = outcome(name)
    assert found.lost == 0
    assert sum(one.requests for one in found.classes.values()) == found.requests == trace().count
    assert found.output_tokens == int(trace().output_tokens.sum())


@pytest.mark.parametrize("name", POLICIES)
def test_energy_is_the_integral_of_power(name: str) -> None:
    found = outcome(name)
    inside = float(found.watts.sum()) * 60.0
    assert inside <= found.energy_joules <= inside + 600.0 * float(found.watts.max())


@pytest.mark.parametrize("name", ["single-pool", "all"])
def test_a_replay_is_the_same_each_time(name: str) -> None:
    again = simulate(trace(), config(name))
    assert again.energy_joules == outcome(name).energy_joules
    assert again.ttft_s == outcome(name).ttft_s
    assert np.array_equal(again.kept, outcome(name).kept)


@pytest.mark.parametrize("name", ["scale-instances", "scale-shard", "scale-frequency", "all"])
def test_each_layer_alone_and_all_together_save_energy(name: str) -> None:
    assert outcome(name).energy_joules < outcome("single-pool").energy_joules


def test_all_layers_save_more_than_each_alone() -> None:
    alone = ("scale-instances", "scale-shard", "scale-frequency")
    assert outcome("all").energy_joules < min(outcome(name).energy_joules for name in alone)


def test_who_knows_the_future_is_not_worse() -> None:
    assert outcome("oracle").energy_joules <= outcome("all").energy_joules


@pytest.mark.parametrize("name", POLICIES)
def test_deadlines_are_kept_under_every_policy(name: str) -> None:
    assert outcome(name).attainment_fraction >= 0.98


def test_the_baseline_has_no_server_too_many() -> None:
    window = trace().between(0.0, 1200.0)
    fewer = SimulationConfig(policy=POLICIES["single-pool"], profile=PROFILE, servers=servers() - 1)
    assert servers() > 1
    assert not simulate(window, fewer).keeps(fewer.slo)


def test_a_fixed_fleet_holds_all_its_gpus_all_the_time() -> None:
    found = outcome("single-pool")
    hours = trace().span_s / 3600.0
    assert found.gpu_hours == pytest.approx(servers() * PROFILE.gpus_per_server * hours, rel=0.02)
    assert found.starts == found.boots == found.clock_changes == 0


def test_a_lost_server_costs_its_answers_and_the_rest_goes_on() -> None:
    found = simulate(trace(), replace(config("all"), lost_server_at_s=1000.0))
    assert 0 < found.lost < 200
    late = trace().arrival_s > 2400.0
    assert found.kept[late].mean() >= 0.98


def test_without_any_instance_requests_wait_for_the_next_one() -> None:
    calm = trace().between(1300.0, 3600.0)  # few enough instances for one server
    found = simulate(calm, replace(config("all"), servers=1, lost_server_at_s=600.0))
    assert found.lost < calm.count / 20
    assert found.kept[calm.arrival_s > 1500.0].mean() >= 0.98


def test_instances_slower_than_believed_still_keep_deadlines_at_more_energy() -> None:
    found = simulate(trace(), replace(config("all"), truth=slower(PROFILE, 1.15)))
    assert found.attainment_fraction >= 0.97
    assert found.energy_joules > outcome("all").energy_joules


def test_a_worse_predictor_loses_no_request() -> None:
    found = simulate(trace(), replace(config("all"), predictor_right_fraction=0.5))
    assert found.lost == 0
    assert found.attainment_fraction >= 0.98


def test_carbon_follows_the_hour_and_money_the_gpus() -> None:
    found = outcome("single-pool")
    flat = found.carbon_g(Prices(carbon_g_per_kwh=(100.0,)))
    assert flat == pytest.approx(found.energy_joules / 3.6e6 * 100.0)
    twice = replace(
        found, watts=np.tile(found.watts[:60], 2), energy_joules=120.0 * 60.0 * float(found.watts[:60].mean())
    )
    both = twice.carbon_g(Prices(carbon_g_per_kwh=(100.0,)))
    assert twice.carbon_g(Prices(carbon_g_per_kwh=(100.0, 0.0))) == pytest.approx(both / 2)
    assert found.cost(Prices(per_gpu_hour=2.0)) == pytest.approx(2.0 * found.gpu_hours)


def test_what_no_instance_can_hold_is_refused_beforehand() -> None:
    large = replace(trace(), prompt_tokens=trace().prompt_tokens + 50_000)
    with pytest.raises(ConfigError, match="does not fit"):
        simulate(large, config("all"))


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="single-pool, multi-pool"):
        policy_named("magic")
