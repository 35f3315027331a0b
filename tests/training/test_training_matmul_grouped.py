"""`grouped_linear`: every expert's tokens by its own weight, whatever their numbers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from training.fp8.compare import sqnr_db  # noqa: E402
from training.fp8.groups import TokenGroups  # noqa: E402
from training.matmul import grouped_linear, linear  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

POLICIES = {name: policy(name, backend="emulate") for name in ("fp8", "bf16", "fp32")}
TOKENS = [100, 0, 128, 1, 71]


def random(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def through(x, weight, gradient, tokens, chosen):
    x, weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    result = grouped_linear(x, weight, tokens, op="moe.expert", policy=chosen)
    result.backward(gradient.to(result.dtype))
    return result.detach(), x.grad, weight.grad


def one_by_one(x, weight, gradient, tokens, chosen):
    """The same by `linear`, an expert at a time."""
    outputs, x_gradients, weight_gradients = [], [], []
    for rows, matrix, dy in zip(x.split(tokens), weight, gradient.split(tokens), strict=True):
        rows, matrix = rows.clone().requires_grad_(), matrix.clone().requires_grad_()
        result = linear(rows, matrix, op="moe.expert", policy=chosen)
        result.backward(dy.to(result.dtype))
        outputs.append(result.detach())
        x_gradients.append(rows.grad)
        weight_gradients.append(matrix.grad)
    return torch.cat(outputs), torch.cat(x_gradients), torch.stack(weight_gradients)


@pytest.mark.parametrize("name", POLICIES)
def test_groups_are_what_linear_gives_for_each(name):
    arguments = random(300, 200), random(5, 72, 200, seed=1), random(300, 72, seed=2).bfloat16()
    expected = one_by_one(*arguments, TOKENS, POLICIES[name])
    for result, other in zip(through(*arguments, TOKENS, POLICIES[name]), expected, strict=True):
        assert torch.allclose(result.float(), other.float(), rtol=2.0**-7, atol=1e-4)


def test_an_expert_without_tokens_gets_a_zero_gradient():
    weight_gradient = through(random(300, 128), random(5, 64, 128, seed=1), random(300, 64), TOKENS, POLICIES["fp8"])[2]
    assert not weight_gradient[1].any()
    assert all(weight_gradient[expert].any() for expert in (0, 2, 3, 4))


@pytest.mark.parametrize("name", POLICIES)
def test_no_tokens_at_all_give_an_empty_result_and_zero_gradients(name):
    results = through(random(0, 128), random(2, 64, 128), random(0, 64), [0, 0], POLICIES[name])
    assert [tuple(each.shape) for each in results] == [(0, 64), (0, 128), (2, 64, 128)]
    assert not results[2].any()


def test_fp8_groups_are_20_db_from_high_precision():
    arguments = random(300, 256), random(5, 128, 256, seed=1), random(300, 128, seed=2).bfloat16()
    exact = through(*arguments, TOKENS, POLICIES["fp32"])
    for result, reference in zip(through(*arguments, TOKENS, POLICIES["fp8"]), exact, strict=True):
        assert sqnr_db(reference, result) > 20


def test_a_groups_weight_gradient_does_not_depend_on_its_neighbours():
    x, weight, gradient = random(300, 128), random(3, 64, 128, seed=1), random(300, 64, seed=2)
    tokens = [100, 72, 128]
    spoilt = x.clone()
    spoilt[100:172] *= 1e4
    one, other = (through(each, weight, gradient, tokens, POLICIES["fp8"])[2] for each in (x, spoilt))
    assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert not torch.equal(one[1], other[1])


def test_an_experts_fp32_gradient_adds_up_over_micro_batches():
    weight = random(2, 64, 128).bfloat16().requires_grad_()
    weight.fp32_gradient = torch.zeros(2, 64, 128)
    for _ in range(2):
        result = grouped_linear(random(256, 128, seed=1), weight, [128, 128], op="moe.expert", policy=POLICIES["fp8"])
        result.backward(random(256, 64, seed=2).bfloat16())
    once = through(random(256, 128, seed=1), weight, random(256, 64, seed=2).bfloat16(), [128, 128], POLICIES["fp8"])[2]
    assert weight.grad is None
    assert torch.allclose(weight.fp32_gradient, 2 * once.float(), rtol=2.0**-7)


def test_a_groups_rows_after_padding_are_where_padded_spans_say():
    groups = TokenGroups.of(TOKENS)
    x = random(300, 3)
    wide = groups.pad(x)
    assert wide.shape == (128 + 0 + 128 + 128 + 128, 3)
    assert torch.equal(torch.cat([wide[span] for span in groups.padded_spans()]), x)
    assert wide.count_nonzero() == x.count_nonzero()


def test_aligned_groups_are_not_copied():
    x = random(256, 3)
    assert TokenGroups.of([128, 0, 128]).pad(x) is x


@settings(deadline=None, max_examples=25)
@given(
    tokens=st.lists(st.integers(0, 140), min_size=1, max_size=5),
    inputs=st.integers(1, 140),
    outputs=st.integers(1, 140),
)
def test_any_groups_give_what_linear_gives_for_each(tokens, inputs, outputs):
    count = sum(tokens)
    arguments = random(count, inputs), random(len(tokens), outputs, inputs, seed=1), random(count, outputs, seed=2)
    expected = one_by_one(*arguments, tokens, POLICIES["fp8"])
    for result, other in zip(through(*arguments, tokens, POLICIES["fp8"]), expected, strict=True):
        assert torch.allclose(result.float(), other.float(), rtol=2.0**-7, atol=1e-4)
