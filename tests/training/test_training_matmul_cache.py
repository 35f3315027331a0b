"""In `weight_cache` a weight is quantised once a step; one that shows an old weight would ruin training silently."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from training import arithmetic  # noqa: E402
from training.errors import ConfigError  # noqa: E402
from training.fp8 import quantise  # noqa: E402
from training.matmul import grouped_linear, linear, weight_cache  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

FP8, BF16 = policy("fp8", backend="emulate"), policy("bf16")


def random(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def quantised(monkeypatch):
    """Names of the weights that were quantised."""
    seen = []

    def noting(weight, what, **options):
        seen.append(what)
        return quantise.quantise_blocks(weight, what, **options)

    monkeypatch.setattr(arithmetic, "quantise_blocks", noting)
    return seen


def step(x, weight, chosen=FP8, op="ffn.linear"):
    return linear(x, weight, op=op, policy=chosen)


def test_micro_batches_of_a_step_share_one_quantisation(quantised):
    x, weight = random(4, 128).requires_grad_(), random(8, 128).requires_grad_()
    with weight_cache():
        for _ in range(3):
            step(x, weight).float().sum().backward()
    assert quantised == ["ffn.linear weight"]


def test_outside_every_call_quantises(quantised):
    for _ in range(2):
        step(random(4, 128), random(8, 128))
    assert len(quantised) == 2


def test_cached_micro_batches_are_bitwise_what_they_are_without():
    results = []
    for cached in (True, False):
        weight = random(64, 256).requires_grad_()
        weight.fp32_gradient = torch.zeros(64, 256)
        outputs = []

        def micro_batches(outputs=outputs, weight=weight):
            for seed in range(3):
                x = random(128, 256, seed=seed).requires_grad_()
                outputs.append(step(x, weight))
                outputs[-1].backward(random(128, 64, seed=seed + 10).bfloat16())
                outputs.append(x.grad)

        if cached:
            with weight_cache():
                micro_batches()
        else:
            micro_batches()
        results.append([*outputs, weight.fp32_gradient])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_weight_changed_in_place_is_quantised_again(quantised):
    x, weight = random(4, 128), random(8, 128).requires_grad_()
    with weight_cache():
        before = step(x, weight)
        with torch.no_grad():
            weight.mul_(2)
        after = step(x, weight)
    assert len(quantised) == 2
    assert torch.equal(after, 2 * before)


def test_the_next_step_quantises_again_even_if_the_change_was_hidden(quantised):
    x, weight = random(4, 128), random(8, 128).requires_grad_()
    with weight_cache():
        before = step(x, weight)
    weight.data.mul_(2)  # as DeepSpeed writes weights: autograd does not see it
    with weight_cache():
        assert torch.equal(step(x, weight), 2 * before)


def test_weights_are_told_apart(quantised):
    x = random(4, 128)
    one, other = random(8, 128), random(8, 128, seed=1)
    with weight_cache():
        results = [step(x, weight) for weight in (one, other, one, other)]
    assert len(quantised) == 2
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


def test_a_new_weight_in_an_old_ones_place_is_not_taken_for_it():
    x = random(4, 128)
    with weight_cache():
        for seed in range(20):
            assert torch.equal(step(x, random(8, 128, seed=seed)), _fresh(x, random(8, 128, seed=seed)))


def _fresh(x, weight):
    return linear(x, weight.clone(), op="ffn.linear", policy=FP8)


def test_one_weight_on_two_grids_is_kept_on_both(quantised):
    x, weight = random(4, 128), random(8, 128)
    two = replace(FP8, power_of_two_scales=True)
    with weight_cache():
        results = [step(x, weight, chosen) for chosen in (FP8, BF16, two, FP8, BF16, two)]
    assert len(quantised) == 2
    for one, again in zip(results[:3], results[3:], strict=True):
        assert torch.equal(one, again)
    assert torch.equal(results[1], step(x, weight, BF16))


def test_experts_are_cached_too(quantised):
    x, weight = random(4, 128), random(2, 8, 128)
    with weight_cache():
        for _ in range(2):
            grouped_linear(x, weight, [3, 1], op="moe.expert", policy=FP8)
    assert quantised == ["moe.expert weight"]


def test_nothing_is_held_after_the_step():
    weight = random(8, 128)
    alive = weakref.ref(weight)
    with weight_cache():
        step(random(4, 128), weight)
    del weight
    gc.collect()
    assert alive() is None


def test_the_cache_is_cleared_when_a_step_fails(quantised):
    weight = random(8, 128)
    with pytest.raises(ConfigError), weight_cache():
        step(step(random(4, 128), weight), weight, op="not in the table")
    step(random(4, 128), weight)
    assert len(quantised) == 2
