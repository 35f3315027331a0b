"""`linear` on every grid: bounds of the FP8 products, where gradients go, and what no cut of the work may change."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn import functional  # noqa: E402

from training.errors import ConfigError  # noqa: E402
from training.fp8.compare import calc_diff, sqnr_db  # noqa: E402
from training.fp8.groups import TokenGroups  # noqa: E402
from training.fp8.quantise import dequantise, quantise_blocks, quantise_columns, quantise_rows  # noqa: E402
from training.matmul import deposit_gradient, linear, torch_dtype  # noqa: E402
from training.precision import BF16, FP8, FP32, policy  # noqa: E402

pytestmark = pytest.mark.torch

FP8_POLICY = policy("fp8", backend="emulate")
POLICIES = {name: policy(name, backend="emulate") for name in ("fp8", "bf16", "fp32")}


def random(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def through(x, weight, gradient, chosen, op="ffn.linear", bias=None):
    """Output, input gradient, weight gradient."""
    x, weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    result = linear(x, weight, op=op, policy=chosen, bias=bias)
    result.backward(gradient.to(result.dtype))
    return result.detach(), x.grad, weight.grad


SHAPES = [(256, 128, 256), (384, 512, 128), (130, 300, 70)]


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def case(request):
    tokens, inputs, outputs = request.param
    return random(tokens, inputs), random(outputs, inputs, seed=1), random(tokens, outputs, seed=2).bfloat16().float()


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["output", "input_gradient", "weight_gradient"])
def test_fp8_is_20_db_and_calc_diff_1e_3_from_high_precision(case, which, power_of_two):
    chosen = policy("fp8", backend="emulate", power_of_two_scales=power_of_two)
    exact = through(*case, POLICIES["fp32"])[which]
    result = through(*case, chosen)[which].float()
    assert sqnr_db(exact, result) > 20
    assert calc_diff(exact, result) < 1e-3


def test_fp8_is_calc_diff_1e_5_from_the_product_of_its_dequantised_operands(case):
    x, weight, gradient = case
    groups = TokenGroups((x.shape[0],))
    rows, blocks = dequantise(quantise_rows(x, "x")), dequantise(quantise_blocks(weight, "w"))
    along = [dequantise(quantise_columns(each, groups, "x"))[: x.shape[0]] for each in (gradient, x)]
    expected = rows @ blocks.t(), dequantise(quantise_rows(gradient, "g")) @ blocks, along[0].t() @ along[1]
    for result, product in zip(through(*case, FP8_POLICY), expected, strict=True):
        assert calc_diff(result, product) < 1e-5


def test_a_bf16_weight_gradient_is_closer_than_an_fp8_one(case):
    exact = through(*case, POLICIES["fp32"])
    fp8 = through(*case, FP8_POLICY)
    mixed = through(*case, policy("fp8", backend="emulate", weight_gradient="bf16"))
    assert torch.equal(mixed[0], fp8[0])
    assert torch.equal(mixed[1], fp8[1])
    assert sqnr_db(exact[2], fp8[2]) < 35 < 50 < sqnr_db(exact[2], mixed[2])


def test_bf16_is_one_fp32_product_of_rounded_operands(case):
    x, weight, gradient = case
    x, weight = x.bfloat16(), weight.bfloat16()
    result, x_gradient, weight_gradient = through(x, weight, gradient, POLICIES["bf16"])
    assert torch.equal(result, (x.float() @ weight.float().t()).bfloat16())
    assert torch.equal(x_gradient, (gradient @ weight.float()).bfloat16())
    assert torch.equal(weight_gradient, (gradient.t() @ x.float()).bfloat16())


def test_fp32_equals_torchs_own_linear_to_the_last_bit(case):
    x, weight, gradient = (each.requires_grad_() for each in case)
    expected = functional.linear(x, weight)
    expected.backward(gradient)
    for result, reference in zip(through(*case, POLICIES["fp32"]), (expected, x.grad, weight.grad), strict=True):
        assert torch.equal(result, reference)


def test_fp32_gradients_agree_with_finite_differences():
    chosen = POLICIES["fp32"]
    x, weight, bias = random(3, 4), random(2, 4, seed=1), random(2, seed=2)

    def loss(x, weight, bias):
        return linear(x, weight, op="ffn.linear", policy=chosen, bias=bias).square().sum()

    leaves = [each.clone().requires_grad_() for each in (x, weight, bias)]
    gradients = torch.autograd.grad(loss(*leaves), leaves)
    for index, gradient in enumerate(gradients):
        direction = random(*gradient.shape, seed=3)
        moved = [[x, weight, bias] for _ in "+-"]
        for sign, each in zip((1, -1), moved, strict=True):
            each[index] = each[index] + sign * 1e-2 * direction
        slope = (loss(*moved[0]) - loss(*moved[1])) / 2e-2
        assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-3)


@pytest.mark.parametrize("name", POLICIES)
def test_leading_dimensions_do_not_matter(name):
    x, weight, gradient = random(2, 3, 64, 128), random(40, 128, seed=1), random(2, 3, 64, 40, seed=2)
    results = through(x, weight, gradient, POLICIES[name])
    flat = through(x.flatten(0, 2), weight, gradient.flatten(0, 2), POLICIES[name])
    assert results[0].shape == (2, 3, 64, 40)
    for result, other in zip(results, flat, strict=True):
        assert torch.equal(result, other.view(result.shape))


@pytest.mark.parametrize("name", POLICIES)
def test_a_bias_is_added_to_the_accumulator_and_gets_its_gradient(name):
    x, weight, bias = random(64, 128), random(8, 128, seed=1), random(8, seed=2).requires_grad_()
    gradient = random(64, 8, seed=3).bfloat16()
    result = linear(x, weight, op="ffn.linear", policy=POLICIES[name], bias=bias)
    plain = linear(x, weight, op="head", policy=POLICIES[name])
    if name != "fp8":  # the head is not an FP8 product, but leaves in FP32
        assert torch.equal(result, (plain.float() + bias).to(result.dtype))
    result.backward(gradient.to(result.dtype))
    assert torch.allclose(bias.grad, gradient.float().sum(0))


def test_the_output_is_the_tables():
    x, weight = random(4, 128).bfloat16(), random(8, 128).bfloat16()
    assert linear(x, weight, op="head", policy=FP8_POLICY).dtype is torch.float32
    assert linear(x, weight, op="mla.q_proj", policy=FP8_POLICY).dtype is torch.bfloat16
    assert linear(x, weight, op="mla.q_proj", policy=POLICIES["fp32"]).dtype is torch.float32


def test_an_operation_that_is_not_in_the_table_is_refused():
    with pytest.raises(ConfigError, match=r"operation = mla\.qproj"):
        linear(random(4, 128), random(8, 128), op="mla.qproj", policy=FP8_POLICY)


def test_the_dtypes_of_precisions():
    assert [torch_dtype(each) for each in (FP8, BF16, FP32)] == [torch.float8_e4m3fn, torch.bfloat16, torch.float32]


# Where gradients go


@pytest.mark.parametrize("name", POLICIES)
def test_an_fp32_gradient_survives_bf16_weights_and_micro_batches(name):
    dtype = torch.float32 if name == "fp32" else torch.bfloat16
    x, weight, gradient = random(512, 128).to(dtype), random(64, 128, seed=1).to(dtype), random(512, 64, seed=2)
    weight.requires_grad_()
    weight.fp32_gradient = torch.zeros(64, 128)
    for rows in (slice(0, 256), slice(256, 512)):
        result = linear(x[rows].clone().requires_grad_(), weight, op="ffn.linear", policy=POLICIES[name])
        result.backward(gradient[rows].to(result.dtype))
    assert weight.grad is None
    whole = through(x.float(), weight.float(), gradient.to(result.dtype).float(), POLICIES[name])[2]
    assert torch.allclose(weight.fp32_gradient, whole, rtol=1e-5, atol=1e-4)
    assert (weight.fp32_gradient.bfloat16().float() != weight.fp32_gradient).any()


def test_the_gradient_goes_where_the_weight_pointed_in_the_forward_pass():
    weight, x = random(8, 128).requires_grad_(), random(4, 128)
    first, second = torch.zeros(8, 128), torch.zeros(8, 128)
    weight.fp32_gradient = first
    one = linear(x, weight, op="ffn.linear", policy=FP8_POLICY)
    weight.fp32_gradient = second
    one.float().sum().backward()
    assert first.any()
    assert not second.any()


def test_without_an_fp32_gradient_the_weight_gets_one_in_its_own_dtype():
    weight = random(8, 128).bfloat16().requires_grad_()
    linear(random(4, 128), weight, op="ffn.linear", policy=FP8_POLICY).float().sum().backward()
    assert weight.grad.dtype is torch.bfloat16
    assert deposit_gradient(weight, torch.ones(8, 128), None).dtype is torch.bfloat16


def test_a_frozen_weight_keeps_no_activation():
    x, weight = random(128, 128).requires_grad_(), random(8, 128)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        linear(x, weight, op="ffn.linear", policy=FP8_POLICY).float().sum().backward()
    assert saved == []
    assert x.grad is not None


def test_fp8_keeps_one_byte_a_value_of_its_input_for_the_backward_pass():
    x, weight = random(256, 384).bfloat16().requires_grad_(), random(8, 384).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        linear(x, weight, op="ffn.linear", policy=FP8_POLICY)
    assert sum(each.numel() * each.element_size() for each in saved) == 256 * 384 + 4 * 384 * 2
    assert {each.dtype for each in saved} == {torch.float8_e4m3fn, torch.float32}


def test_nothing_is_kept_where_no_gradient_is_asked():
    saved = []
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        result = linear(random(4, 128), random(8, 128).requires_grad_(), op="ffn.linear", policy=FP8_POLICY)
    assert saved == []
    assert not result.requires_grad


def test_a_wrong_in_place_change_between_the_passes_is_noticed():
    x, weight = random(4, 128), random(8, 128).requires_grad_()
    result = linear(x, weight, op="ffn.linear", policy=POLICIES["fp32"])
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


# What no cut of the work may change


def test_columns_cut_at_multiples_of_128_are_bitwise_the_same():
    x, weight, gradient = random(256, 384), random(512, 384, seed=1), random(256, 512, seed=2).bfloat16()
    whole = through(x, weight, gradient, FP8_POLICY)
    parts = [
        through(x, weight[rows], gradient[:, rows], FP8_POLICY)
        for rows in (slice(0, 256), slice(256, 384), slice(384, 512))
    ]
    assert torch.equal(whole[0], torch.cat([part[0] for part in parts], 1))
    assert torch.equal(whole[2], torch.cat([part[2] for part in parts], 0))


def test_rows_cut_at_multiples_of_128_add_up_in_fp32_to_1e_4():
    x, weight = random(256, 512), random(128, 512, seed=1)
    chosen = replace(FP8_POLICY, table={"head": replace(FP8_POLICY.op("ffn.linear"), output=FP32)})
    whole = linear(x, weight, op="head", policy=chosen)
    parts = [linear(x[:, k], weight[:, k], op="head", policy=chosen) for k in (slice(0, 128), slice(128, 512))]
    assert (sum(parts) - whole).norm() / whole.norm() < 1e-4


def test_micro_batches_of_128_tokens_give_the_same_weight_gradient():
    x, weight, gradient = random(512, 128), random(64, 128, seed=1), random(512, 64, seed=2).bfloat16()
    whole = through(x, weight, gradient, FP8_POLICY)

    def relative_difference(cuts):
        parts = [through(x[rows], weight, gradient[rows], FP8_POLICY)[2] for rows in cuts]
        return ((sum(parts) - whole[2]).norm() / whole[2].norm()).item()

    assert relative_difference([slice(0, 128), slice(128, 384), slice(384, 512)]) < 1e-6
    assert relative_difference([slice(0, 192), slice(192, 512)]) > 1e-3  # tiles that the cut goes through


def test_tokens_do_not_see_each_other():
    x, weight = random(300, 256), random(64, 256, seed=1)
    whole = linear(x, weight, op="ffn.linear", policy=FP8_POLICY)
    assert torch.allclose(
        whole[100:101].float(), linear(x[100:101], weight, op="ffn.linear", policy=FP8_POLICY).float(), rtol=2.0**-7
    )


# What the observer is shown


@pytest.mark.parametrize("name", POLICIES)
def test_the_observer_is_shown_what_was_really_used(name):
    seen = defaultdict(list)
    chosen = replace(POLICIES[name], observer=lambda op, role, tensor: seen[op, role].append(tensor))
    x, weight, gradient = random(256, 128).bfloat16(), random(64, 128, seed=1), random(256, 64, seed=2).bfloat16()
    result, x_gradient, weight_gradient = through(x, weight, gradient, chosen)
    grid = torch_dtype(chosen.op("ffn.linear").compute)
    assert {key[0] for key in seen} == {"ffn.linear"}
    assert [each.dtype for each in seen["ffn.linear", "compute"]] == [grid] * 5  # x, W; dy; dy, x along the tokens
    assert {each.dtype for each in seen["ffn.linear", "accumulate"]} == {torch.float32}
    assert torch.equal(seen["ffn.linear", "output"][0], result)
    assert torch.equal(seen["ffn.linear", "input_gradient"][0].to(x.dtype), x_gradient)
    assert torch.equal(seen["ffn.linear", "weight_gradient"][0], weight_gradient)
    assert seen["ffn.linear", "weight_gradient"][0].dtype is torch.float32


# Any shape


@settings(deadline=None, max_examples=40)
@given(
    tokens=st.integers(0, 270),
    inputs=st.integers(1, 270),
    outputs=st.integers(1, 270),
    seed=st.integers(0, 5),
    name=st.sampled_from(["fp8", "bf16"]),
)
def test_any_shape_stays_within_what_two_rounded_factors_can_do(tokens, inputs, outputs, seed, name):
    x, weight = random(tokens, inputs, seed=seed), random(outputs, inputs, seed=seed + 1)
    gradient = random(tokens, outputs, seed=seed + 2).bfloat16().float()
    sizes = x.abs() @ weight.abs().t(), gradient.abs() @ weight.abs(), gradient.abs().t() @ x.abs()
    exact = through(x, weight, gradient, POLICIES["fp32"])
    # Two operands and the output are rounded; codes below 2^-6 are coarse.
    relative, absolute = (2 * 2.0**-4 + 2.0**-6, 5e-3) if name == "fp8" else (2.0**-6, 1e-5)
    for result, expected, size in zip(through(x, weight, gradient, POLICIES[name]), exact, sizes, strict=True):
        assert result.shape == expected.shape
        assert ((result.float() - expected).abs() <= relative * size + absolute).all()
