"""A plan that cannot run is refused with one line before anything is launched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import ConfigError
from training.model.presets import preset
from training.parallel.plan import ParallelPlan

V3, LLAMA = preset("tiny-v3"), preset("tiny-llama")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        pytest.param({"tensor": 0}, "parallel.tensor = 0: must be at least 1", id="zero"),
        pytest.param(
            {"schedule": "gpipe"}, "parallel.schedule = gpipe: must be one of 1f1b, dualpipev", id="unknown-schedule"
        ),
        pytest.param({"zero_stage": 0}, "parallel.zero_stage = 0: must be 1, 2 or 3", id="no-zero"),
        pytest.param({"data": 4, "expert": 3}, "parallel.expert = 3: must divide data (data = 4)", id="expert-in-data"),
        pytest.param(
            {"pipeline": 2, "zero_stage": 2},
            "parallel.zero_stage = 2: must be 1 with a pipeline (pipeline = 2)",
            id="zero-2-with-a-pipeline",
        ),
        pytest.param(
            {"data": 2, "expert": 2, "zero_stage": 3},
            "parallel.zero_stage = 3: must be below 3 with expert parallelism (expert = 2)",
            id="zero-3-with-experts-dealt-out",
        ),
        pytest.param(
            {"pipeline": 2, "schedule": "dualpipev", "micro_batches": 3},
            "parallel.micro_batches = 3: must be at least 2 x pipeline for dualpipev (4 with pipeline = 2)",
            id="too-few-micro-batches",
        ),
        pytest.param(
            {"schedule": "dualpipev", "micro_batches": 4},
            "parallel.schedule = dualpipev: needs a pipeline of at least 2 (pipeline = 1)",
            id="dualpipev-alone",
        ),
        pytest.param(
            {"pipeline": 5},
            "parallel.pipeline = 5: must leave every stage a block of the model (5 stages, 4 blocks)",
            id="too-deep",
        ),
        pytest.param(
            {"pipeline": 3, "schedule": "dualpipev", "micro_batches": 6},
            "parallel.pipeline = 3: must leave every stage a block of the model (6 stages, 4 blocks)",
            id="too-deep-for-two-stages-a-rank",
        ),
        pytest.param({"tensor": 3}, "parallel.tensor = 3: must divide the 4 heads of keys and values", id="heads"),
        pytest.param(
            {"data": 8, "expert": 8}, "parallel.expert = 8: must divide n_routed_experts = 4", id="experts-to-deal-out"
        ),
    ],
)
def test_a_broken_rule_is_named(values, line) -> None:
    with pytest.raises(ConfigError) as refused:
        ParallelPlan(**values).validate(V3, 128)
    assert str(refused.value) == line


def test_a_shard_must_hold_whole_fp8_blocks() -> None:
    with pytest.raises(ConfigError, match=r"^parallel.tensor = 4: must cut .* into multiples of 128$"):
        ParallelPlan(tensor=4).validate(V3, 128)


def test_a_dense_model_has_no_experts_to_deal_out() -> None:
    with pytest.raises(ConfigError, match="no experts"):
        ParallelPlan(data=2, expert=2).validate(LLAMA, 128)


def test_the_product_must_be_the_number_of_ranks() -> None:
    with pytest.raises(ConfigError) as refused:
        ParallelPlan(pipeline=2, data=2, tensor=2).validate(V3, 128, ranks=6)
    assert str(refused.value) == (
        "parallel.pipeline x data x tensor = 8: must be the number of ranks (2 x 2 x 2 = 8, there are 6)"
    )


def test_fp8_asks_for_whole_tiles_of_tokens_and_bf16_does_not() -> None:
    plan = ParallelPlan(micro_sequences=3)
    plan.validate(V3, 100, policy="bf16")
    with pytest.raises(ConfigError, match=r"multiple of 128 tokens with FP8 \(3 x sequence_length 100 = 300\)$"):
        plan.validate(V3, 100, policy="fp8")
    plan.validate(V3, 256, policy="fp8")


def test_everything_the_end_to_end_job_needs_is_allowed() -> None:
    ParallelPlan(pipeline=2, tensor=2, data=2, expert=2, micro_batches=4, schedule="dualpipev").validate(V3, 128)


def test_all_broken_rules_are_found_and_counted_under_a_name_without_the_value() -> None:
    four, eight = (ParallelPlan(data=n, expert=n, tensor=3).problems(V3, 100) for n in (8, 16))
    assert [problem.rule for problem in four] == [problem.rule for problem in eight]
    assert len(four) == 3  # heads, experts, tokens


def test_the_model_is_not_asked_about_a_plan_that_contradicts_itself() -> None:
    assert len(ParallelPlan(data=3, expert=2, tensor=3).problems(V3, 100)) == 1


@given(
    pipeline=st.integers(1, 4),
    tensor=st.integers(1, 4),
    data=st.integers(1, 4),
    micro_batches=st.integers(1, 8),
    schedule=st.sampled_from(["1f1b", "dualpipev"]),
)
def test_a_plan_without_problems_holds_every_rule(pipeline, tensor, data, micro_batches, schedule) -> None:
    plan = ParallelPlan(pipeline=pipeline, tensor=tensor, data=data, micro_batches=micro_batches, schedule=schedule)
    if not plan.problems(V3, 128, ranks=plan.world_size):
        assert V3.num_attention_heads % tensor == 0
        assert pipeline * (2 if schedule == "dualpipev" else 1) <= 4
        assert schedule == "1f1b" or micro_batches >= 2 * pipeline > 2


def test_sizes_follow_from_the_axes() -> None:
    plan = ParallelPlan(pipeline=2, tensor=4, data=8, micro_sequences=2, micro_batches=5, schedule="dualpipev")
    assert (plan.world_size, plan.stages, plan.global_sequences) == (64, 4, 80)
    assert replace(plan, schedule="1f1b").stages == 2


def test_the_bubble_of_one_f_one_b_is_the_known_formula() -> None:
    assert ParallelPlan(pipeline=4, micro_batches=8).bubble_fraction() == pytest.approx(3 / 11)
    assert ParallelPlan(micro_batches=8).bubble_fraction() == 0.0
