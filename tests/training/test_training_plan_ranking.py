"""Which plans can run on N GPUs, which are best, and why the others cannot."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from training.errors import ConfigError
from training.model.presets import preset
from training.planning.hardware import hardware
from training.planning.rank_plans import Question, candidates, rank_plans
from training.precision import policy


def _question(**values) -> Question:
    known = {
        "model": preset("tiny-v3"),
        "gpus": 4,
        "global_sequences": 8,
        "sequence_length": 128,
        "policy": policy("fp8"),
        "hardware": hardware("h100-sxm"),
    }
    return Question(**(known | values))


def test_every_candidate_uses_all_gpus_and_makes_up_the_batch() -> None:
    plans = list(candidates(_question()))
    assert len(plans) == len(set(plans))
    assert {plan.world_size for plan in plans} == {4}
    assert {plan.global_sequences for plan in plans} == {8}
    assert {plan.pipeline for plan in plans} == {1, 2, 4}
    assert {plan.zero_stage for plan in plans if plan.pipeline > 1} == {1}
    assert all(plan.data % plan.expert == 0 for plan in plans)


def test_a_dense_model_is_not_dealt_out_by_experts() -> None:
    assert {plan.expert for plan in candidates(_question(model=preset("tiny-llama")))} == {1}


def test_the_best_plan_comes_first() -> None:
    ranking = rank_plans(_question(), top=5)
    times_s = [ranked.predicted.step_s for ranked in ranking.best]
    assert times_s == sorted(times_s)
    assert len(ranking.best) == 5
    assert ranking.feasible > 5
    assert ranking.best[0].plan.problems(preset("tiny-v3"), 128, ranks=4) == ()


def test_plans_can_be_ranked_by_energy() -> None:
    joules = [ranked.predicted.joules for ranked in rank_plans(_question(), order="energy").best]
    assert joules == sorted(joules)
    with pytest.raises(ConfigError, match="order = price: must be one of time, energy"):
        rank_plans(_question(), order="price")


def test_refused_plans_are_counted_by_rule() -> None:
    ranking = rank_plans(_question())
    assert ranking.refused["parallel.micro_batches: must be at least 2 x pipeline for dualpipev"] > 0
    counts = list(ranking.refused.values())
    assert counts == sorted(counts, reverse=True)
    assert ranking.tried > ranking.feasible


def test_a_model_that_does_not_fit_is_refused_for_memory() -> None:
    small = replace(hardware("h100-sxm"), memory_bytes=1e6)
    with pytest.raises(ConfigError) as refused:
        rank_plans(_question(hardware=small))
    line = r"gpus = 4: none of \d+ plans can run; memory: must fit into 90% of 0 GB, and the smallest needs 0\.\d+ GB"
    assert re.fullmatch(line, str(refused.value))


def test_tensor_ranks_stay_inside_a_node() -> None:
    one_gpu_nodes = replace(hardware("h100-sxm"), gpus_per_node=1.0)
    ranking = rank_plans(_question(hardware=one_gpu_nodes))
    assert ranking.refused["parallel.tensor: must stay inside a node"] > 0
    assert {ranked.plan.tensor for ranked in ranking.best} == {1}


def test_a_batch_too_small_for_the_gpus_is_said_so() -> None:
    """7 does not divide the batch, and as a pipeline or across heads it does not divide the model."""
    with pytest.raises(ConfigError, match=r"gpus = 7: none of \d+ plans can run; \d+ of them: parallel\."):
        rank_plans(_question(gpus=7, global_sequences=1))


def test_a_large_model_needs_many_gpus() -> None:
    """671 B parameters at 14 bytes do not fit 64 GPUs of 141 GB."""
    question = _question(
        model=preset("deepseek-v3"), gpus=64, global_sequences=64, sequence_length=4096, hardware=hardware("h200-sxm")
    )
    with pytest.raises(ConfigError, match="memory: must fit into 90% of 141 GB, and the smallest needs "):
        rank_plans(question)
