"""Experts on several ranks against all of them on one: results, gradients, bytes on the wire, balancing."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")  # ranks are forked from a process that has imported it

from tests.training.rank_functions_model import (  # noqa: E402
    build,
    model_on_ranks,
    pass_once,
    random_tokens,
    there_and_back_on_ranks,
    updated_bias_on_ranks,
)
from tests.training.ranks import run_ranks  # noqa: E402
from training.fp8.quantise import dequantise, quantise_rows  # noqa: E402
from training.model.decoder import Decoder  # noqa: E402
from training.model.moe import Router, update_router_bias  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.parallel.context import SINGLE, Axis, ParallelContext  # noqa: E402
from training.parallel.expert import combine, dispatch, plan_route  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

TINY = preset("tiny-v3")
ROWS = 3 * 128 * TINY.num_experts_per_tok
"""That a rank sends in one forward pass: two layers and multi-token prediction, one sequence of 128."""


def _tokens(count: int) -> list[torch.Tensor]:
    return [random_tokens(TINY, sequences=1, seed=seed) for seed in range(count)]


@lru_cache
def _both(policy_name: str, *, tensor: int = 1):
    """For the tokens of two data ranks: the outcomes of one process, and those of ranks that share their experts."""
    tokens = _tokens(2)
    alone = [pass_once(build(TINY, policy_name), each) for each in tokens]
    return alone, run_ranks(model_on_ranks, 2 * tensor, TINY, policy_name, {"expert": 2, "tensor": tensor}, tokens)


@pytest.mark.parametrize(("policy_name", "bound"), [("fp32", 1e-5), ("bf16", 0.0), ("fp8", 0.0)])
def test_sharing_experts_does_not_change_what_a_rank_computes(policy_name, bound):
    alone, ranks = _both(policy_name)
    for one, rank in zip(alone, ranks, strict=True):
        assert rank.loss == pytest.approx(one.loss, abs=bound)
        torch.testing.assert_close(rank.logits, one.logits, atol=bound, rtol=0)


@pytest.mark.parametrize(("policy_name", "bound"), [("fp32", 1e-5), ("bf16", 0.02), ("fp8", 0.06)])
def test_an_expert_collects_the_gradients_of_all_ranks_and_the_rest_stays_local(policy_name, bound):
    alone, ranks = _both(policy_name)
    experts = {key for key in alone[0].gradients if ".experts." in key}
    held = [rank.gradients.keys() & experts for rank in ranks]
    assert held[0] | held[1] == experts
    assert not held[0] & held[1]
    for one, rank in zip(alone, ranks, strict=True):
        for key, gradient in rank.gradients.items():
            whole = one.gradients[key] if key not in experts else sum(each.gradients[key] for each in alone)
            assert (gradient - whole).norm() <= bound * whole.norm() + 1e-12, key


def test_four_ranks_in_two_axes_equal_one():
    alone, ranks = _both("fp32", tensor=2)
    for index, rank in enumerate(ranks):
        one = alone[index // 2]
        assert rank.loss == pytest.approx(one.loss, abs=1e-5)
        for key, gradient in rank.gradients.items():
            total = one.gradients[key] if ".experts." not in key else sum(each.gradients[key] for each in alone)
            whole = total[rank.pieces[key]]
            scale = whole.abs().max().clamp(min=1e-12)
            torch.testing.assert_close(gradient / scale, whole / scale, atol=1e-4, rtol=0)


def test_fp8_dispatch_moves_0_5156_of_the_bytes_of_bf16():
    (_, fp8), (_, bf16) = _both("fp8"), _both("bf16")
    for eight, sixteen in zip(fp8, bf16, strict=True):
        one, two = eight.traffic["expert.dispatch"], sixteen.traffic["expert.dispatch"]
        # Codes and scales go separately. Routing may differ by a token or two, the rows sent in all do not.
        assert one["calls"] == 2 * two["calls"]
        assert one["bytes"] / two["bytes"] == (1 + 4 / 128) / 2 == 0.515625
        assert two["bytes"] == ROWS * TINY.hidden_size * 2


def test_results_and_gradients_travel_in_bf16():
    _, ranks = _both("fp8")
    for name in ("combine", "dispatch_backward", "combine_backward"):
        sent = [rank.traffic[f"expert.{name}"] for rank in ranks]
        assert [entry["calls"] for entry in sent] == [3, 3]
        # A rank sends home what it was sent; together that is every row once.
        assert sum(entry["bytes"] for entry in sent) == 2 * ROWS * TINY.hidden_size * 2


@pytest.mark.parametrize("policy_name", ["fp32", "bf16", "fp8"])
@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([[1, 2, 3, 4], [4, 3, 2, 1]], id="all-busy"),
        pytest.param([[0, 0, 0, 7], [0, 2, 0, 0]], id="one-expert-each"),
        pytest.param([[0, 0, 0, 5], [0, 0, 3, 0]], id="one-rank-gets-nothing"),
        pytest.param([[0, 0, 0, 0], [1, 0, 0, 1]], id="one-rank-has-nothing"),
        pytest.param([[0, 0, 0, 0], [0, 0, 0, 0]], id="nobody-has-anything"),
    ],
)
def test_every_row_reaches_its_expert_and_comes_home(counts, policy_name):
    ranks = run_ranks(there_and_back_on_ranks, 2, counts, policy_name)
    for rank, (sent, per_expert, back, gradient, _) in enumerate(ranks):
        mine = [2 * rank, 2 * rank + 1]
        expected = [
            100 * sender + expert for expert in mine for sender in (0, 1) for _ in range(counts[sender][expert])
        ]
        assert sent == expected
        assert per_expert == [counts[0][expert] + counts[1][expert] for expert in mine]
        own = [expert for expert in range(4) for _ in range(counts[rank][expert])]
        assert back == [2 * (100 * rank + expert) for expert in own]
        assert gradient == [2 * expert for expert in own]


@pytest.mark.parametrize("power_of_two", [False, True])
def test_a_token_is_rounded_to_the_wires_grid_even_where_nothing_is_sent(power_of_two):
    chosen = policy("fp8", power_of_two_scales=power_of_two)
    rows = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    route = plan_route(torch.tensor([3, 5]), SINGLE)
    sent = dispatch(rows, route, chosen, SINGLE)
    on_grid = dequantise(quantise_rows(rows, "x", power_of_two=power_of_two))
    assert torch.equal(sent, on_grid.bfloat16())
    assert 0.01 < (sent - rows).norm() / rows.norm() < 0.04
    assert torch.equal(combine(sent, route, chosen, SINGLE), sent)


def test_balancing_counts_the_tokens_of_the_whole_data_axis():
    tokens = _tokens(2)
    module = build(TINY, "fp32")
    for each in tokens * 2:
        pass_once(module, each)
    update_router_bias(module, SINGLE, speed=0.01)
    expected = [router.e_score_correction_bias for router in module.modules() if isinstance(router, Router)]
    assert any(bias.abs().max() > 0 for bias in expected)
    for cuts in ({"expert": 2}, {"expert": 1}, {"tensor": 2}):
        data = [torch.cat(tokens)] if "tensor" in cuts else tokens
        for biases in run_ranks(updated_bias_on_ranks, 2, TINY, data, cuts):
            assert all(torch.equal(bias, other) for bias, other in zip(biases, expected, strict=True))


def test_shared_experts_are_marked_for_deepspeed_and_single_ones_are_not():
    context = ParallelContext(expert=Axis("expert", 1, 2))
    marked = [p for p in Decoder(TINY, policy("fp32"), context).parameters() if getattr(p, "allreduce", True) is False]
    assert len(marked) == 2 * 3
    assert {parameter.group_name for parameter in marked} == {"ep_size_2"}
    assert {tuple(parameter.expert_indices) for parameter in marked} == {(2, 3)}
    assert not any(hasattr(parameter, "group_name") for parameter in Decoder(TINY, policy("fp32")).parameters())


def test_scales_count_when_128_does_not_divide_the_width():
    odd = replace(TINY, hidden_size=192)
    tokens = [random_tokens(odd, sequences=1, seed=seed) for seed in range(2)]
    (rank, _) = run_ranks(model_on_ranks, 2, odd, "fp8", {"expert": 2}, tokens)
    assert rank.traffic["expert.dispatch"]["bytes"] == ROWS * (192 + 2 * 4)
