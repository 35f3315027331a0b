"""What a step of the engine tells, does and refuses, on ranks of this machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from tests.training.rank_functions_engine import (  # noqa: E402
    Scenario,
    change_micro_batch,
    cut_by_measurement,
    evaluate_between,
    gradients_in_place,
    lose_a_peer,
    outcomes_of,
    poisoned_step,
    refused,
    told_and_seen,
    train,
)
from tests.training.ranks import run_ranks  # noqa: E402

pytestmark = pytest.mark.torch

ONE = Scenario()
TWO_STAGES = Scenario(pipeline=2)
FOLDED = Scenario(pipeline=2, schedule="dualpipev")


def _on_ranks(function, scenario, *arguments):
    return run_ranks(function, scenario.plan.world_size, scenario, *arguments)


# Micro-batches


@pytest.mark.parametrize(
    ("scenario", "sizes"),
    [
        pytest.param(replace(ONE, policy="fp32"), [2, 1, 8, 2], id="one-rank"),
        pytest.param(replace(TWO_STAGES, policy="fp32"), [2, 4, 1, 2], id="1f1b"),
        pytest.param(replace(FOLDED, policy="fp32"), [2, 1, 2, 1], id="dualpipev"),
        pytest.param(Scenario(data=2, expert=2, zero_stage=2, policy="fp32"), [2, 1, 4, 2], id="zero-2"),
        pytest.param(Scenario(data=2, zero_stage=3, policy="fp32"), [2, 1, 4, 2], id="zero-3"),
    ],
)
def test_another_cut_of_the_batch_leaves_the_loss_curve(scenario, sizes):
    steady = _on_ranks(train, scenario, len(sizes))
    changed = _on_ranks(change_micro_batch, scenario, sizes)
    for (loss, norm), (other_loss, other_norm) in zip(steady[0], changed[0], strict=True):
        assert other_loss == pytest.approx(loss, abs=3e-6)
        assert other_norm == pytest.approx(norm, rel=1e-4)


def test_another_cut_of_the_batch_costs_rounding_only_in_fp8():
    scenario = replace(TWO_STAGES, policy="fp8")
    steady, changed = (_on_ranks(change_micro_batch, scenario, sizes)[0] for sizes in ([2, 2, 2], [2, 4, 2]))
    assert max(abs(a - b) for (a, _), (b, _) in zip(steady, changed, strict=True)) < 2e-3


@pytest.mark.parametrize(
    ("scenario", "what", "message"),
    [
        (ONE, "micro 3", "batch.micro_sequences = 3: must divide 8, the sequences of one data rank"),
        (ONE, "micro 0", "batch.micro_sequences = 0: must divide 8, the sequences of one data rank"),
        (FOLDED, "micro 4", "batch.micro_sequences = 4: must leave at least 4 micro-batches for dualpipev"),
        (Scenario(data=2), "launch", "WORLD_SIZE = 3: the plan needs 2 ranks"),
        (
            Scenario(data=2, expert=2, zero_stage=3),
            "start",
            "parallel.zero_stage = 3: must be below 3 with expert parallelism (expert = 2)",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(scenario, what, message):
    assert _on_ranks(refused, scenario, what) == [f"ConfigError: {message}"] * scenario.plan.world_size


def test_zero_2_is_refused_with_a_pipeline():
    (error, _) = _on_ranks(refused, replace(TWO_STAGES, zero_stage=2), "start")
    assert error.startswith("ConfigError: parallel.zero_stage = 2: must be 1 with a pipeline")


# Gradients, losses and what is not finite


@pytest.mark.parametrize("scenario", [ONE, replace(TWO_STAGES, policy="fp8"), Scenario(data=2, expert=2)])
def test_weight_gradients_gather_in_fp32_and_never_pass_through_bf16(scenario):
    for seen in _on_ranks(gradients_in_place, scenario):
        assert not any(seen["begin"]["autograd"])
        assert set(seen["begin"]["dtypes"]) == {torch.float32}
        assert not any(seen["begin"]["zero"])
        assert seen["begin"]["deepspeed"]
        assert all(seen["end"]["zero"])


@pytest.mark.parametrize("where", ["weight", "gradient"])
@pytest.mark.parametrize(
    ("scenario", "bad_rank"),
    [
        pytest.param(Scenario(policy="bf16", pipeline=2), 1, id="last-stage"),
        pytest.param(Scenario(policy="fp8", pipeline=2), 0, id="fp8-first-stage"),
        pytest.param(Scenario(policy="fp8", data=2, expert=2), 1, id="data-rank"),
        pytest.param(Scenario(policy="bf16", tensor=2), 1, id="tensor-rank"),
    ],
)
def test_infinity_on_one_rank_ends_the_step_on_all_with_one_text_that_names_it(scenario, bad_rank, where):
    errors = set(_on_ranks(poisoned_step, scenario, bad_rank, where))
    (error,) = errors
    assert error.startswith("NumericsError: step 2: ")
    assert f"rank {bad_rank}: " in error
    assert "not finite" in error
    if where == "gradient":
        assert f"rank {bad_rank}: gradient" in error


def test_an_infinite_fp8_operand_is_named():
    (error,) = set(_on_ranks(poisoned_step, Scenario(policy="fp8"), 0, "weight"))
    assert "not finite before the FP8 cast" in error


def test_evaluation_changes_nothing_and_is_the_same_on_every_rank():
    plain = _on_ranks(train, FOLDED, 2)[0]
    held_out = []
    for scenario in (ONE, TWO_STAGES, FOLDED):
        ranks = _on_ranks(evaluate_between, scenario)
        assert all(rank == ranks[0] for rank in ranks)
        losses, curve = ranks[0]
        assert curve == plain
        held_out.append(losses)
    assert held_out[0] == held_out[1] == held_out[2]
    assert len(set(held_out[0])) == 3


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_zero_2_and_3_follow_zero_1(zero_stage):
    scenario = Scenario(data=2, policy="bf16", optimizer="sgd")
    first = _on_ranks(train, scenario, 3)[0]
    further = _on_ranks(train, replace(scenario, zero_stage=zero_stage), 3)[0]
    assert max(abs(a - b) for (a, _), (b, _) in zip(first, further, strict=True)) < 1e-3


# Clocks, callbacks, silence


@pytest.mark.parametrize("scenario", [ONE, TWO_STAGES, FOLDED, Scenario(zero_stage=2)])
def test_a_step_tells_each_pass_and_adds_up_what_it_computed(scenario):
    for told, outcome in _on_ranks(told_and_seen, scenario):
        passes = scenario.plan.micro_batches * scenario.plan.chunks
        for name in ("forward", "backward"):
            assert told.count((name, "begin")) == told.count((name, "end")) == passes
            assert sum(span.name == name for span in outcome.spans) == passes
        assert told[-1] == ("optimizer", "end")
        assert [told[i + 1] for i in range(0, len(told), 2)] == [(name, "end") for name, _ in told[::2]]
        begins = [span.begin_s for span in outcome.spans]
        assert begins == sorted(begins)
        assert all(0.0 <= span.begin_s <= span.end_s <= outcome.step_s for span in outcome.spans)
        busy_s = sum(span.end_s - span.begin_s for span in outcome.spans if span.name in outcome.busy_s)
        assert sum(outcome.busy_s.values()) == pytest.approx(busy_s)
        assert busy_s < outcome.step_s


def test_dualpipev_tells_its_two_stages_apart():
    for _, outcome in _on_ranks(told_and_seen, FOLDED):
        forward = [span.chunk for span in outcome.spans if span.name == "forward"]
        assert sorted(forward) == [0] * 4 + [1] * 4


def test_stages_send_the_streams_and_the_tokens_and_get_the_gradient_back():
    outcomes = [rank[1] for rank in _on_ranks(outcomes_of, TWO_STAGES, 2)]
    tokens = 8 * 64
    hidden = tokens * TWO_STAGES.config.hidden_size * 2
    assert [outcome.bytes_by_name["pipe.send"] for outcome in outcomes] == [hidden + tokens * 8, hidden]
    assert outcomes[0].bytes_by_axis["pipe"] == sum(
        size for name, size in outcomes[0].bytes_by_name.items() if name.startswith("pipe.")
    )


def test_a_silent_peer_ends_in_an_error_within_the_timeout():
    one, silent = run_ranks(lose_a_peer, 2, TWO_STAGES, 4.0)
    assert silent == "silent"
    assert "imed out" in one or "imeout" in one


def test_a_cut_by_measured_times_is_agreed_on_and_changes_no_loss():
    expected = _on_ranks(train, ONE, 1)[0]
    ranks = _on_ranks(cut_by_measurement, TWO_STAGES)
    assert ranks[0] == ranks[1]
    boundaries, curve = ranks[0]
    assert boundaries[0] == 0
    assert boundaries[-1] == 8
    assert curve == expected
