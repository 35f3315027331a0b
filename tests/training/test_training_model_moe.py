"""Routing, balancing and the arithmetic of a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tests.training.rank_functions_model import build, pass_once, random_tokens  # noqa: E402
from training.model.initialise import initialise  # noqa: E402
from training.model.moe import MixtureOfExperts, Router, update_router_bias  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.parallel.context import SINGLE  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

TINY = preset("tiny-v3")
EIGHT = replace(TINY, n_routed_experts=8, n_group=4, topk_group=2, num_experts_per_tok=3)


def _router(config=TINY, policy_name: str = "fp32") -> Router:
    router = Router("model.layers.1.mlp.gate.", config, policy(policy_name))
    initialise(router, config, 0)
    return router


def _moe(policy_name: str, config=TINY) -> MixtureOfExperts:
    module = MixtureOfExperts("model.layers.1.mlp.", config, policy(policy_name, backend="emulate"), SINGLE)
    initialise(module, replace(config, initializer_range=0.1), 0)
    return module


def _hidden(tokens: int = 64, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, tokens, TINY.hidden_size, generator=generator).to(dtype)


def test_only_experts_of_the_best_groups_are_chosen():
    router = _router(EIGHT)
    scores = torch.tensor([[0.9, 0.0, 0.5, 0.5, 0.1, 0.2, 0.6, 0.3]])  # groups count 0.9, 1.0, 0.3, 0.9
    chosen = router._choose(scores - torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1]))
    assert set(chosen[0].tolist()) == {0, 2, 3}


def test_weights_sum_to_the_scaling_factor_and_leave_the_bias_out():
    config = replace(TINY, routed_scaling_factor=2.5)
    router = _router(config)
    weights, experts = router(_hidden().flatten(0, 1))
    assert torch.allclose(weights.sum(-1), torch.tensor(2.5))
    with torch.no_grad():
        router.e_score_correction_bias += 10.0  # on all alike: the choice is the same, and so must the weights be
    shifted, same = router(_hidden().flatten(0, 1))
    assert torch.equal(experts, same)
    assert torch.equal(weights, shifted)


def test_a_large_bias_draws_every_token():
    router = _router()
    with torch.no_grad():
        router.e_score_correction_bias[3] = 10.0
    _, experts = router(_hidden().flatten(0, 1))
    assert (experts == 3).any(-1).all()


def test_the_bias_stays_fp32_to_the_last_bit_whatever_the_model_is_cast_to():
    module = build(TINY, "fp32")
    routers = [part for part in module.modules() if isinstance(part, Router)]
    with torch.no_grad():
        for router in routers:
            router.e_score_correction_bias += 1 + 2.0**-20
    for cast in (torch.nn.Module.bfloat16, lambda m: m.to(torch.bfloat16), torch.nn.Module.half, torch.nn.Module.cpu):
        cast(module)
        assert all(router.e_score_correction_bias.dtype == torch.float32 for router in routers)
        assert all((router.e_score_correction_bias == 1 + 2.0**-20).all() for router in routers)
    assert routers[0].weight.dtype == torch.float16


def test_tokens_are_counted_in_training_only_and_over_micro_batches():
    router, x = _router(), _hidden().flatten(0, 1)
    router(x)
    router(x)
    counted = router.token_counts.clone()
    assert counted.sum() == 2 * 64 * TINY.num_experts_per_tok
    with torch.no_grad():
        router(x)
    router.eval()(x)
    assert torch.equal(router.token_counts, counted)


def test_busy_experts_lose_and_idle_ones_gain_a_step_of_bias():
    router = _router()
    router.token_counts += torch.tensor([10, 2, 6, 6])
    update_router_bias(router, SINGLE, speed=0.001)
    assert router.e_score_correction_bias.tolist() == pytest.approx([-0.001, 0.001, 0.0, 0.0])
    assert router.token_counts.tolist() == [0, 0, 0, 0]


def test_the_bias_evens_out_the_load():
    router, x = _router(), _hidden(512).flatten(0, 1) + 0.5
    with torch.no_grad():
        router.weight[0] += 0.01  # a favourite

    def spread() -> float:
        router(x)
        load = router.token_counts.float() / router.token_counts.sum()
        update_router_bias(router, SINGLE, speed=0.003)
        return (load.max() - load.min()).item()

    before = spread()
    after = [spread() for _ in range(100)][-1]
    assert before > 0.2
    assert after < before / 5


def test_the_bias_gets_no_gradient_and_the_router_does():
    module = _moe("fp32")
    module(_hidden()).sum().backward()
    assert module.router.weight.grad.abs().max() > 0
    assert not module.router.e_score_correction_bias.requires_grad


@pytest.mark.parametrize("policy_name", ["fp32", "bf16", "fp8"])
def test_an_expert_nobody_chose_has_no_gradient_and_does_no_harm(policy_name):
    module = _moe(policy_name)
    with torch.no_grad():
        module.router.e_score_correction_bias[2] = -10.0
    x = _hidden(dtype=module.router.weight.dtype).requires_grad_()
    module(x).sum().backward()
    assert module.experts.gate_up.grad[2].abs().max() == 0
    assert module.experts.gate_up.grad[[0, 1, 3]].abs().amax((1, 2)).min() > 0
    assert x.grad.isfinite().all()


def test_the_output_is_the_weighted_sum_over_each_tokens_experts():
    module, x = _moe("fp32"), _hidden(16)
    weights, experts = module.router(x[0])
    expected = torch.zeros(16, TINY.hidden_size)
    for token in range(16):
        for weight, expert in zip(weights[token], experts[token].tolist(), strict=True):
            gate, up = (module.experts.gate_up[expert] @ x[0, token]).chunk(2)
            inner = torch.nn.functional.silu(gate) * up
            expected[token] += weight * (module.experts.down[expert] @ inner)
    expected += module.shared(x[0])
    torch.testing.assert_close(module(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_no_shared_expert_is_a_model_too():
    config = replace(TINY, n_shared_experts=0)
    outcome = pass_once(build(config, "fp8"), random_tokens(config))
    assert outcome.loss == pytest.approx(8.11, abs=0.1)
    assert not any("shared_experts" in name for name in outcome.gradients)


def test_the_same_pass_twice_gives_the_same_bits():
    one, other = (pass_once(build(TINY, "fp8"), random_tokens(TINY)) for _ in range(2))
    assert one.loss == other.loss
    assert all(torch.equal(one.gradients[name], other.gradients[name]) for name in one.gradients)
